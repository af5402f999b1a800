"""`ringfence export --as` says what the control plane holds as policies of Kubernetes."""

import yaml

from ringfence.cli.main import FAILED, OK
from tests.integration.control.conftest import World
from tests.integration.control.test_enforce_command import files
from tests.unit.control.shop import DOCUMENTS


async def test_workspaces_are_exported_or_refused(world: World) -> None:
    await world.ok("POST", "/apply", json=files())
    code, out, said = await world.run("export", "--as", "networkpolicy")
    assert (code, out) == (FAILED, "")
    assert said.startswith("workspace shop: policy front-to-db: ingress: no label selector knows")
    selectable = DOCUMENTS.replace("'name = ", '\'kind = "pod" and kubernetes.label.app = ')
    await world.ok("POST", "/apply", json=files(selectable))
    code, out, _ = await world.run("export", "--as", "networkpolicy")
    assert code == OK
    assert [one["metadata"]["name"] for one in yaml.safe_load_all(out)] == [
        "shop-ingress",
        "shop-front-to-db-ingress",
    ]
