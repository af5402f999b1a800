"""What agents write rules with."""

from ringfence.agent.mechanisms import Kind, enforcer
from tests.golden.listing import front_end


def test_each_agent_calls_its_sets_otherwise() -> None:
    """Those of its predecessor are in use until its rules are there."""
    policy, binding = front_end()
    names = []
    for _ in range(2):
        backend = enforcer(Kind.NFTABLES).backend
        lines = backend.transaction(backend.render_pod(policy, binding), None).splitlines()
        names.append({line.split()[4] for line in lines if line.startswith("add set ")})
    assert all(names)
    assert names[0].isdisjoint(names[1])
