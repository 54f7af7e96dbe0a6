"""A training run in small: writes the curve of f(x, y) + noise over steps into metrics.jsonl.

Every start leaves a line in `starts`; it resumes from the last step in metrics.jsonl. With a
`gate` it waits before step 4 until that file exists. A `flaky` one fails there at its first start.
Every process notes its host; of several the first does the rest.
"""

import json
import os
import pathlib
import sys
import time

out = pathlib.Path(sys.argv[1])
settings = dict(word.split("=", 1) for word in sys.argv[2:])
x, y = float(settings.get("x", 0)), float(settings.get("y", 0))
steps, delay = int(settings.get("steps", 3)), float(settings.get("delay", 0))
out.mkdir(parents=True, exist_ok=True)
with open(out / "hosts", "a") as file:
    file.write(f"{os.uname().nodename}\n")
if int(os.environ.get("UNCLIP_PROCESS_ID", "0")):
    sys.exit()
with open(out / "starts", "a") as file:
    file.write("start\n")
path = out / "metrics.jsonl"
first = len(path.read_text().splitlines()) if path.exists() else 0
for step in range(first + 1, steps + 1):
    time.sleep(delay)
    while step == 4 and "gate" in settings and not pathlib.Path(settings["gate"]).exists():
        time.sleep(0.05)
    if settings.get("kind") == "broken":
        sys.exit("broken")
    if step == 4 and "flaky" in settings and not (out / "failed").exists():
        (out / "failed").touch()
        sys.exit("flaky")
    loss = (x - 0.3) ** 2 + 0.1 * y + 1.0 / step
    with open(path, "a") as file:
        file.write(json.dumps({"step": step, "loss": loss}) + "\n")
