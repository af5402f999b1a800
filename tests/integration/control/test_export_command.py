"""`ringfence export --as` says what the control plane holds as policies of Kubernetes."""

import yaml

from ringfence.cli.main import FAILED, OK, USAGE
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


async def test_a_workspace_is_exported_by_its_name(world: World) -> None:
    await world.ok("POST", "/apply", json=files())
    await world.ok("POST", "/apply", json=files(DOCUMENTS.replace("3306", "3307")))
    words = ("export", "--kind", "Workspace", "--name", "shop")
    for short, long in ((["shop@p1"], ["--version", "1"]), (["shop@p2"], [])):
        code, out, _ = await world.run("export", *short)
        assert (code, out) == (OK, (await world.run(*words, *long))[1])
    _, every, _ = await world.run("export", "shop")
    kinds = [one["kind"] for one in yaml.safe_load_all(every)]
    assert kinds == ["Scope", "Workspace"], "whatever is called so"
    for more in (["--name", "shop"], ["--version", "1"]):
        code, _, said = await world.run("export", "shop@p1", *more)
        assert (code, "stands there twice" in said) == (USAGE, True)
