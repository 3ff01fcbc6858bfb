"""Which workers a run has, and whether they can be reached."""

import socket
import threading
import types

import pytest
import tensorflow as tf

from ssd_tf.errors import ConfigError
from ssd_tf.training import distribution


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def resolver_of(addresses, task):
    return distribution.find_workers(addresses, task)


def count_workers(resolver):
    return distribution.count_workers(types.SimpleNamespace(cluster_resolver=resolver))


def test_this_process_alone():
    assert distribution.find_workers() is None
    assert count_workers(None) == 1


def test_hosts():
    resolver = resolver_of(["a:1", "b:2"], 1)
    assert count_workers(resolver) == 2
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert resolver.cluster_spec().as_dict() == {"worker": ["a:1", "b:2"]}


def test_tf_config(monkeypatch):
    text = (
        '{"cluster": {"chief": ["c:1"], "worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}'
    )
    monkeypatch.setenv("TF_CONFIG", text)
    resolver = distribution.find_workers()
    assert count_workers(resolver) == 2
    assert resolver.task_type == "chief"


@pytest.mark.parametrize(
    ("hosts", "task", "message"),
    [
        (["a:1", "b:2"], None, "expected --hosts and --task together"),
        (None, 0, "expected --hosts and --task together"),
        ([], 0, "expected --hosts and --task together"),
        (["a"], 0, "expected HOST:PORT, got 'a'"),
        (["a:0"], 0, "expected HOST:PORT, got 'a:0'"),
        (["a:65536"], 0, "expected HOST:PORT, got 'a:65536'"),
        ([":5"], 0, "expected HOST:PORT, got ':5'"),
        (["a:1", "a:1"], 0, "expected each worker once, got a:1,a:1"),
        (["a:1", "b:2"], 2, "--task: expected 0 to 1, an index into --hosts, got 2"),
    ],
)
def test_hosts_that_cannot_be_used(hosts, task, message):
    with pytest.raises(ConfigError, match=message):
        distribution.find_workers(hosts, task)


def test_hosts_beside_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(ConfigError, match="give either --hosts or the environment variable TF_CON"):
        distribution.find_workers(["a:1", "b:2"], 0)


@pytest.fixture
def slurm(monkeypatch):
    """A function: the variables of task 2 of three, on two nodes; changes replace some."""

    def install(**changes):
        values = {
            "SLURM_PROCID": "2",
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_STEP_NODELIST": "node[08-09]",
            "SLURM_STEP_TASKS_PER_NODE": "2,1",
        }
        for name, value in (values | changes).items():
            monkeypatch.setenv(name, value)

    monkeypatch.setattr("shutil.which", lambda _name: None)
    return install


def test_slurm(slurm):
    slurm()
    resolver = distribution.find_workers()
    expected = {"worker": ["node08:8888", "node08:8889", "node09:8888"]}
    assert resolver.cluster_spec().as_dict() == expected
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


def test_one_task_of_slurm_is_no_cluster(slurm):
    slurm(SLURM_STEP_NUM_TASKS="1")
    assert distribution.find_workers() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLURM_STEP_NODELIST", "node[8"), ("SLURM_STEP_TASKS_PER_NODE", "two")],
)
def test_variables_of_slurm_that_name_nobody(slurm, name, value):
    slurm(**{name: value})
    with pytest.raises(ConfigError, match=r"SLURM.* do not name the workers \(Invalid .*srun"):
        distribution.find_workers()


@pytest.fixture
def addresses():
    """Two addresses of this machine with ports that are free."""
    servers = [socket.create_server(("localhost", 0)) for _ in range(2)]
    names = [f"localhost:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return names


def test_workers_wait_for_each_other(addresses):
    done = []

    def wait(task):
        distribution.wait_for_workers(resolver_of(addresses, task), timeout=60, poll=0.01)
        done.append(task)
        # What TensorFlow's server does next.
        with socket.create_server(("", int(addresses[task].rpartition(":")[2]))):
            both.wait(60)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=wait, args=(task,)) for task in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1]


def test_a_worker_that_does_not_come(addresses):
    message = rf"after 0 s not reached: {addresses[1]} \(connection refused\); start the same"
    with pytest.raises(OSError, match=message):
        distribution.wait_for_workers(resolver_of(addresses, 0), timeout=0, poll=0)


def test_a_host_without_an_address(addresses):
    hosts = [addresses[0], "no-such-host.invalid:2222"]
    with pytest.raises(OSError, match=r"the worker no-such-host\.invalid:2222 has no address"):
        distribution.wait_for_workers(resolver_of(hosts, 0), timeout=60, poll=0)


def test_a_port_that_is_in_use(addresses):
    port = int(addresses[0].rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        pytest.raises(OSError, match=rf"cannot listen on port {port} for .* \(Address already"),
    ):
        distribution.wait_for_workers(resolver_of(addresses, 0), timeout=60, poll=0)


def test_a_cluster_of_one_does_not_wait(addresses):
    cluster = tf.train.ClusterSpec({"worker": addresses[:1]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, task_type="worker")
    resolver.task_id = 0
    distribution.wait_for_workers(resolver, timeout=0, poll=0)


@pytest.mark.parametrize(
    ("jobs", "leader"),
    [
        ({"worker": ["a:1", "b:2"]}, "/job:worker/replica:0/task:0"),
        ({"worker": ["b:2"], "chief": ["a:1"]}, "/job:chief/replica:0/task:0"),
    ],
)
def test_a_silent_worker_is_lost_after_less_than_a_minute(monkeypatch, jobs, leader):
    given = {}
    fake = types.SimpleNamespace(configure_coordination_service=lambda **keys: given.update(keys))
    monkeypatch.setattr(distribution.context, "context", lambda: fake)
    cluster = tf.train.ClusterSpec(jobs)
    distribution.tolerate_silence(types.SimpleNamespace(cluster_spec=lambda: cluster))
    assert given["service_leader"] == leader
    assert 20_000 <= given["heartbeat_timeout_in_ms"] < 60_000
    assert given["cluster_register_timeout_in_ms"] == 300_000
    found = {job.name: job.num_tasks for job in given["coordinated_jobs"]}
    assert found == {job: len(addresses) for job, addresses in jobs.items()}
