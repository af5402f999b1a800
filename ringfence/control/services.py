"""What the routes and the gRPC service work with, in one container that the server fills once.

A route asks for it with a parameter `services: ServicesDep`.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ringfence.control.agents import Agents
from ringfence.control.alert_delivery import AlertDelivery
from ringfence.control.continuous import Continuous
from ringfence.control.enforcement import Enforcement
from ringfence.control.experiments import Experiments
from ringfence.control.ingest import FlowIngest
from ringfence.control.inspections import Inspections
from ringfence.control.inventory import Inventory
from ringfence.control.labels import UploadedLabels
from ringfence.control.metrics import Metrics
from ringfence.control.modes import Modes
from ringfence.control.pki import Authority
from ringfence.control.promotions import Promotions
from ringfence.control.quarantine import Quarantines
from ringfence.control.recommendations import Recommendations
from ringfence.control.repairs import Repairs
from ringfence.control.requests import Requests
from ringfence.control.times import Clock
from ringfence.control.trials import Trials
from ringfence.store.flows import FlowStore
from ringfence.store.relational.database import Database


@dataclass(frozen=True)
class Services:
    """Everything that the control plane is made of, started."""

    clock: Clock
    database: Database
    """What people decide: tokens, scopes, workspaces, enforcement, changes."""
    inventory: Inventory
    """What exists: `inventory.timeline`, and `inventory.names`; kept in the database."""
    labels: UploadedLabels
    """What people say of addresses."""
    enforcement: Enforcement
    """What is enforced, and what each node has to do for it."""
    trials: Trials
    """Which change of it is on trial."""
    continuous: Continuous
    """What every version under analysis says to what arrives."""
    experiments: Experiments
    """What versions would have said to flows of the past."""
    recommendations: Recommendations
    """What discovery says of scopes unasked."""
    promotions: Promotions
    """How far scopes are on their path to being enforced."""
    alert_delivery: AlertDelivery
    """Who is to hear of alerts."""
    quarantines: Quarantines
    """Which workloads are cut off."""
    requests: Requests
    """What workspaces ask of each other."""
    agents: Agents
    """Who is connected and in what state."""
    inspections: Inspections
    """What agents answer about their kernels."""
    modes: Modes
    """How finely each agent reports."""
    repairs: Repairs
    """Which rules agents found changed by another, and wrote again."""
    flow_store: FlowStore
    """What agents observed."""
    ingest: FlowIngest
    """Takes in what agents report."""
    authority: Authority
    """Signs certificates."""
    metrics: Metrics
    grpc_port: int


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
