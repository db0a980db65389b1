-- SPDX-License-Identifier: GPL-2.0-or-later
-- Has wrk close with a line of JSON, of the same make as colo-bench-client's.
function done(summary, latency, requests)
    local errors = summary.errors
    local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('{"jobs": [{"job": "wrk", "requests": %d, "failures": %d, "errors": {', summary.requests, failures))
    local comma = ""
    for _, kind in ipairs({"connect", "read", "write", "status", "timeout"}) do
        if errors[kind] > 0 then
            io.write(string.format('%s"%s": %d', comma, kind, errors[kind]))
            comma = ", "
        end
    end
    io.write(string.format('}, "bytes": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "max": %.3f, "gap": %.3f}]}\n',
                           summary.bytes, summary.duration / 1e6, latency:percentile(50) / 1e3,
                           latency:percentile(99) / 1e3, latency.max / 1e3, latency.max / 1e3))
end
