"""torchvision's SSD training transforms on a folder of NAME.jpg and NAME.json.

    python torchvision_input.py DIR HEIGHT WIDTH BATCH WORKERS

Called by input_pipeline.py. Needs torch, torchvision and Pillow, and nothing from this package. A
module `torchvision_ops` on the path, if there is one, is imported first: it may supply compiled
operators that a build of torchvision lacks.
"""

import contextlib
import json
import pathlib
import sys
import time

with contextlib.suppress(ModuleNotFoundError):
    import torchvision_ops  # noqa: F401
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

folder, *sizes = sys.argv[1:]
height, width, batch_size, num_workers = map(int, sizes)
files = sorted(pathlib.Path(folder).glob("*.jpg"))

# references/detection/presets.py, data augmentation "ssd" with the v2 transforms; ssd300_vgg16
# resizes inside the model.
transform = v2.Compose(
    [
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill={tv_tensors.Image: (123, 117, 104), "others": 0}),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(p=0.5),
        v2.Resize((height, width), antialias=False),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float32, scale=True),
    ]
)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 100_000_000

    def __getitem__(self, index):
        file = files[index % len(files)]
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(file).convert("RGB")))
        objects = json.loads(file.with_suffix(".json").read_text())
        boxes = torch.tensor(objects["boxes"], dtype=torch.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[-2:])
        return transform(image, {"boxes": boxes, "labels": torch.tensor(objects["labels"])})


def collate(items):
    return torch.stack([image for image, _ in items]), [target for _, target in items]


if __name__ == "__main__":
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        Images(), batch_size, collate_fn=collate, num_workers=num_workers
    )
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    num_batches = 12
    start = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    rate = num_batches * batch_size / (time.perf_counter() - start)
    versions = f"torch {torch.__version__}; no matching, no encoding"
    print(f"{rate:.0f} images/s with {num_workers} workers ({versions})")
    sys.stdout.flush()
    batches._shutdown_workers()
