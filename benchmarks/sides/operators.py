"""Makes torchvision importable beside a CPU build of torch; imported before diffusers.

Its wheels are built for CUDA and register fakes of two operators that a CPU build lacks; their
signatures are all that importing diffusers needs of them.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
if not torch.cuda.is_available():
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
