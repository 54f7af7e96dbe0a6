"""Makes torchvision importable beside a CPU build of torch.

Its wheels are built for CUDA and register fakes of two operators that a CPU build lacks; defining
their signatures first is all that transformers, diffusers and open_clip need of them.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
