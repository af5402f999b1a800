"""Put Ringfence into a running lab."""

from concurrent.futures import ThreadPoolExecutor

from ringfence.lab import images, machine, node
from ringfence.lab.config import LabConfig
from ringfence.lab.progress import Progress
from ringfence.lab.state import State


def install(config: LabConfig, record: State, progress: Progress) -> None:
    """Load the image of agent and connector into every node."""
    archive = images.ringfence_image(progress)
    nodes = [machine.find(config, record, spec.name) for spec in config.node_specs]
    with progress.step("Load the image into every node"), ThreadPoolExecutor() as pool:
        list(pool.map(lambda target: node.load_image(target, archive), nodes))
