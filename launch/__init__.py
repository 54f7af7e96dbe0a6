"""Starting runs; free of jax, so that it works where no accelerator stack is installed.

A `RunSpec` says what is to run; a backend says where. On `local`, `ssh` and `gcp-tpu` the launcher
starts and watches the processes itself, by way of an agent on each host; `slurm` and `gke` have
schedulers, which get a job that restarts itself; for `skypilot` a task file is written.

Modules import each other relatively: the room ships as `unclip_jax.launch` and lies in `launch`.
"""
