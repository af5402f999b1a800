"""What follows from a change of documents, once it is written down and may not look undone."""

from ringfence.control.services import Services


async def take_effect(services: Services) -> list[str]:
    """Have everything go by what was written; tells what will do so only later."""
    services.enforcement.touch()
    told = {
        "address sets hold what they held, for now": await services.inventory.address_sets.follow(),
        "what this needs of other scopes is not known yet": await services.requests.follow(),
    }
    return [f"{what}: {problem}" for what, problem in told.items() if problem]
