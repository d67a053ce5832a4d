"""Late binding: which waiting request goes to which free server, as a pure decision, and its simulator."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.dispatch.account import Account as Account
    from diffpolicy.edge.dispatch.advice import advise as advise
    from diffpolicy.edge.dispatch.advised_fleet import AdvisedFleet as AdvisedFleet
    from diffpolicy.edge.dispatch.advised_fleet import AdvisedServer as AdvisedServer
    from diffpolicy.edge.dispatch.arrivals import Arrivals as Arrivals
    from diffpolicy.edge.dispatch.cost_model import CostModel as CostModel
    from diffpolicy.edge.dispatch.env import HeldEnv as HeldEnv
    from diffpolicy.edge.dispatch.falls_back import FallsBack as FallsBack
    from diffpolicy.edge.dispatch.held import Held as Held
    from diffpolicy.edge.dispatch.moment import Binding as Binding
    from diffpolicy.edge.dispatch.moment import Dispatcher as Dispatcher
    from diffpolicy.edge.dispatch.moment import Moment as Moment
    from diffpolicy.edge.dispatch.named import make_held as make_held
    from diffpolicy.edge.dispatch.on_arrival import OnArrival as OnArrival
    from diffpolicy.edge.dispatch.orders import ORDERS as ORDERS
    from diffpolicy.edge.dispatch.orders import CostMinusAge as CostMinusAge
    from diffpolicy.edge.dispatch.orders import EarliestDeadline as EarliestDeadline
    from diffpolicy.edge.dispatch.orders import FirstCome as FirstCome
    from diffpolicy.edge.dispatch.orders import HighestResponseRatio as HighestResponseRatio
    from diffpolicy.edge.dispatch.orders import Order as Order
    from diffpolicy.edge.dispatch.orders import ShortestFirst as ShortestFirst
    from diffpolicy.edge.dispatch.orders import WeightedShortest as WeightedShortest
    from diffpolicy.edge.dispatch.outcome import Outcome as Outcome
    from diffpolicy.edge.dispatch.request_log import RequestLog as RequestLog
    from diffpolicy.edge.dispatch.service_fit import ServiceFit as ServiceFit
    from diffpolicy.edge.dispatch.simulate import simulate as simulate
    from diffpolicy.edge.dispatch.verdicts import Advice as Advice
    from diffpolicy.edge.dispatch.verdicts import Verdict as Verdict

_HERE = "diffpolicy.edge.dispatch."
attach(
    __name__,
    {
        "AdvisedFleet": _HERE + "advised_fleet",
        "AdvisedServer": _HERE + "advised_fleet",
        "Advice": _HERE + "verdicts",
        "Verdict": _HERE + "verdicts",
        "advise": _HERE + "advice",
        "RequestLog": _HERE + "request_log",
        "ServiceFit": _HERE + "service_fit",
        "Account": _HERE + "account",
        "Arrivals": _HERE + "arrivals",
        "Binding": _HERE + "moment",
        "CostMinusAge": _HERE + "orders",
        "CostModel": _HERE + "cost_model",
        "Dispatcher": _HERE + "moment",
        "EarliestDeadline": _HERE + "orders",
        "FallsBack": _HERE + "falls_back",
        "FirstCome": _HERE + "orders",
        "Held": _HERE + "held",
        "HeldEnv": _HERE + "env",
        "HighestResponseRatio": _HERE + "orders",
        "Moment": _HERE + "moment",
        "ORDERS": _HERE + "orders",
        "OnArrival": _HERE + "on_arrival",
        "Order": _HERE + "orders",
        "Outcome": _HERE + "outcome",
        "ShortestFirst": _HERE + "orders",
        "WeightedShortest": _HERE + "orders",
        "make_held": _HERE + "named",
        "simulate": _HERE + "simulate",
    },
)
__all__ = (
    "ORDERS",
    "Account",
    "Advice",
    "AdvisedFleet",
    "AdvisedServer",
    "Arrivals",
    "Binding",
    "CostMinusAge",
    "CostModel",
    "Dispatcher",
    "EarliestDeadline",
    "FallsBack",
    "FirstCome",
    "Held",
    "HeldEnv",
    "HighestResponseRatio",
    "Moment",
    "OnArrival",
    "Order",
    "Outcome",
    "RequestLog",
    "ServiceFit",
    "ShortestFirst",
    "Verdict",
    "WeightedShortest",
    "advise",
    "make_held",
    "simulate",
)
