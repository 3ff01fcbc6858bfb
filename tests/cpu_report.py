"""The option --cpu-report: what each test costs, in CPU seconds.

Unlike `--durations` it does not depend on what else the machine does, and it includes the processes
that a test starts and waits for. The costs of a session's fixture belong to the test that is its
first user.
"""

import os

import pytest

NUM_LINES = 60


def pytest_addoption(parser):
    parser.addoption(
        "--cpu-report", action="store_true", help="list the tests that take the most CPU seconds"
    )


def _seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _measure(phase):
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def hook(item):
        before = _seconds()
        try:
            return (yield)
        finally:
            # It reaches the process that reports, also from those of pytest-xdist.
            item.user_properties.append((f"cpu {phase}", _seconds() - before))

    return hook


pytest_runtest_setup = _measure("setup")
pytest_runtest_call = _measure("call")
pytest_runtest_teardown = _measure("teardown")


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--cpu-report"):
        return
    costs = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name.startswith("cpu "):
                    costs[report.nodeid, name] = value
    by_file = {}
    for (test, _), seconds in costs.items():
        file = test.split("::")[0]
        by_file[file] = by_file.get(file, 0) + seconds
    terminalreporter.section(f"CPU seconds of the tests: {sum(costs.values()):.0f}")
    for file, seconds in sorted(by_file.items(), key=lambda pair: -pair[1])[:NUM_LINES]:
        terminalreporter.line(f"{seconds:7.1f}  {file}")
    terminalreporter.section("the most expensive tests")
    for (test, phase), seconds in sorted(costs.items(), key=lambda pair: -pair[1])[:NUM_LINES]:
        terminalreporter.line(f"{seconds:7.1f}  {phase.removeprefix('cpu '):8}  {test}")
