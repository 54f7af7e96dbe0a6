"""What karlo samples with; neither its own files nor a diffusers folder says."""

PRIOR = {"sampler": "ddpm", "steps": 25, "guidance_scale": 4.0}
DECODER = {"sampler": "ddpm", "steps": 25, "guidance_scale": 8.0}
UPSAMPLER = {"sampler": "ddpm", "steps": 7}
