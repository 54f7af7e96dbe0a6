"""Which processes make up a run, from environments as the schedulers set them."""

import pytest

from unclip_jax.errors import UserError
from unclip_jax.parallel.cluster import Cluster, detect

OWN = {
    "UNCLIP_COORDINATOR": "10.0.0.1:9000",
    "UNCLIP_NUM_PROCESSES": "4",
    "UNCLIP_PROCESS_ID": "2",
}
SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "rack[1-2]-n[03-04]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
NODES = ["rack1-n03", "rack1-n04", "rack2-n03", "rack2-n04"]
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
TPU = {"TPU_WORKER_HOSTNAMES": "t-0,t-1", "TPU_WORKER_ID": "1"}


def found(env, nodes=NODES):
    return detect(env, lambda names: nodes)


def test_a_process_on_its_own():
    assert found({}) is None
    assert found({**OWN, "UNCLIP_NUM_PROCESSES": "1", "UNCLIP_PROCESS_ID": "0"}) is None
    batch_script = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert found(batch_script) is None


def test_our_own_variables():
    assert found(OWN) == Cluster("UNCLIP_*", "10.0.0.1:9000", 4, 2)


def test_slurm_names_its_first_node_and_all_others():
    cluster = found(SLURM)
    assert (cluster.found_by, cluster.processes, cluster.process) == ("SLURM", 4, 3)
    assert cluster.coordinator == f"rack1-n03:{61440 + 1}"
    assert cluster.name(2) == "process 2 (rack2-n03)"


def test_a_requeued_slurm_job_uses_another_port():
    again = found({**SLURM, "SLURM_RESTART_COUNT": "1"})
    assert again.coordinator != found(SLURM).coordinator


def test_several_slurm_tasks_of_a_node_take_a_device_each():
    two_per_node = {**SLURM, "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert found(two_per_node, NODES[:2]).local_device == 1
    bound_already = {**two_per_node, "CUDA_VISIBLE_DEVICES": "1"}
    assert found(bound_already, NODES[:2]).local_device is None


def test_open_mpi_4_tells_an_address_and_5_does_not():
    cluster = found(OPEN_MPI)
    assert (cluster.processes, cluster.process) == (2, 1)
    assert cluster.coordinator.startswith("10.96.0.1:6")
    five = {k: v for k, v in OPEN_MPI.items() if k != "OMPI_MCA_orte_hnp_uri"}
    with pytest.raises(UserError, match="UNCLIP_COORDINATOR is not set, and Open MPI"):
        found(five)
    assert found({**five, "UNCLIP_COORDINATOR": "a:1"}).coordinator == "a:1"


def test_tpu_hosts_of_one_slice_and_of_several():
    assert found(TPU) == Cluster("TPU", "t-0:8476", 2, 1, ("t-0", "t-1"))
    slices = {
        **TPU,
        "MEGASCALE_NUM_SLICES": "3",
        "MEGASCALE_SLICE_ID": "2",
        "MEGASCALE_COORDINATOR_ADDRESS": "job-0-0:8080",
    }
    cluster = found(slices)
    assert (cluster.coordinator, cluster.processes, cluster.process) == ("job-0-0:8476", 6, 5)
    assert found({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None


def test_an_indexed_kubernetes_job():
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
    assert found(pod) is None
    told = {**pod, "UNCLIP_COORDINATOR": "job-0.svc:9000", "UNCLIP_NUM_PROCESSES": "2"}
    assert found(told) == Cluster("Kubernetes", "job-0.svc:9000", 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"UNCLIP_PROCESS_ID": None}, "UNCLIP_PROCESS_ID is not set"),
        ({"UNCLIP_PROCESS_ID": "4"}, "numbered 0 to 3"),
        ({"UNCLIP_PROCESS_ID": "two"}, "'two' is not a number"),
        ({"UNCLIP_COORDINATOR": "10.0.0.1"}, "is not HOST:PORT"),
        ({"UNCLIP_HOSTS": "a,b"}, "names 2 of 4"),
    ],
)
def test_what_contradicts_itself_is_refused(change, message):
    env = {k: v for k, v in {**OWN, **change}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        found(env)
