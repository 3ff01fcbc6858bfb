"""torchvision's training step of ssdlite320_mobilenet_v3_large, one for each line of the input.

    python torchvision_train_step.py BATCH THREADS

Called by train_step.py. Needs torch and torchvision, and nothing from this package. A module
`torchvision_ops` on the path, if there is one, is imported first: it may supply compiled operators
that a build of torchvision lacks.
"""

import contextlib
import sys

with contextlib.suppress(ModuleNotFoundError):
    import torchvision_ops  # noqa: F401
import torch
from torchvision.models import detection

batch_size, num_threads = map(int, sys.argv[1:])
torch.set_num_threads(num_threads)
torch.manual_seed(0)
model = detection.ssdlite320_mobilenet_v3_large(
    weights=None, weights_backbone=None, num_classes=81
).train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)
images = [torch.rand(3, 320, 320) for _ in range(batch_size)]
targets = []
for _ in range(batch_size):
    corners = torch.rand(7, 2) * 200
    boxes = torch.cat([corners, corners + 20 + torch.rand(7, 2) * 100], 1)
    targets.append({"boxes": boxes, "labels": torch.randint(1, 81, (7,))})

for _ in sys.stdin:
    optimizer.zero_grad()
    loss = sum(model(images, targets).values())
    loss.backward()
    optimizer.step()
    print(loss.item(), flush=True)
