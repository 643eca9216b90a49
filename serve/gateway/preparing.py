"""What a call asks of the limits, and what its engine gets instead of what the client sent."""

from msgspec import structs

from serve.gateway.call import Call
from serve.gateway.estimate import Estimate
from serve.gateway.heads import priority
from serve.limits import Ask
from serve.roster import ServedModel

_LARGE_BYTES = 16 * 1024


def ask_for(
    call: Call, model: ServedModel, estimate: Estimate, slots: int, longest_wait_s: float
) -> Ask:
    """What it may take at most. `slots`: of the model, see `Ask`."""
    asked, caller = call.asked, call.request.caller
    prompt = estimate.input_tokens(len(asked.prompt) or len(asked.body))
    output = estimate.output_tokens(asked, model.context_tokens)
    call.tokens = (prompt, output)
    return Ask(
        caller.key,
        caller.tenant,
        model.name,
        model.limits,
        prompt + output,
        model.price.cost(prompt, 0, output),
        priority(call.request),
        slots,
        longest_wait_s,
    )


def prepare(call: Call, model: ServedModel, salt: bytes) -> None:
    """Make the body for an engine. `salt`: that keeps the tenant's prefix cache apart, or none."""
    asked, route, name = call.asked, call.route, model.upstream or model.name
    call.adds_cache = call.request.headers.get(b"x-inhouse-usage") == b"deepseek"
    if route.is_form:
        call.body = asked.renamed(name)
        return
    call.salt = salt
    call.drops_usage = asked.is_stream and route.streams_usage and not asked.wants_usage()
    call.body = asked.for_engine(name, salt, call.drops_usage)
    if len(asked.body) > _LARGE_BYTES:  # once is enough, for hundreds at a time
        call.asked = structs.replace(asked, body=b"", frame=b"", looked=None)
