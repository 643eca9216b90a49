"""What a call asks of the limits, and what its engine gets instead of what the client sent."""

import msgspec

from serve.gateway.call import Call
from serve.gateway.estimate import Estimate
from serve.gateway.heads import priority
from serve.limits import Ask
from serve.roster import ServedModel


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
    asked, route, changes = call.asked, call.route, {}
    name = model.upstream or model.name
    call.adds_cache = call.request.headers.get(b"x-inhouse-usage") == b"deepseek"
    if route.is_form:
        call.body = asked.body
        return
    call.salt = salt
    if asked.model != name:
        changes["model"] = msgspec.json.encode(name)
    if salt:
        changes["cache_salt"] = b'"%b"' % salt
    if asked.is_stream and route.streams_usage and not asked.wants_usage():
        changes["stream_options"] = asked.with_usage()
        call.drops_usage = True
    call.body = asked.rewritten(changes) if changes else asked.body
