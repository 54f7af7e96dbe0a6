"""The shipped presets: (stage, variant) of each, and the variant of the CLIP that it goes with."""

PRESETS = {
    "clip": (
        *("tiny", "emoji", "karlo", "paper", "vit_b32", "vit_b16", "vit_l14", "vit_l14_336"),
        *("vit_h14", "vit_h16", "vit_bigg14"),
    ),
    "prior": ("tiny", "emoji", "karlo", "paper"),
    "decoder": ("tiny", "emoji", "emoji_64", "karlo", "paper"),
    "upsampler": ("tiny", "emoji", "emoji_128", "emoji_256", "karlo", "paper_256", "paper_1024"),
}
CLIP_OF = {
    "tiny": "tiny",
    "emoji": "emoji",
    "emoji_64": "emoji",
    "karlo": "karlo",
    "paper": "paper",
}
CASES = [(stage, variant) for stage, variants in PRESETS.items() for variant in variants]
