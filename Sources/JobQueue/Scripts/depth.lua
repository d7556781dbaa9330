-- How much waits and runs in a partition's queues. Changes nothing. A key that is no stream counts as empty.
-- KEYS  the queues, then the dead letters     ARGV  1 group
-- Returns for each queue {entries, delivered and not ended, not yet delivered, ms that the oldest undelivered one waits or -1}, flat, then the dead letters.
local answer = {}
local now = tonumber(now_ms())
local function length(key)
    local count = redis.pcall('XLEN', key)
    return type(count) == 'number' and count or 0
end
for index = 1, #KEYS - 1 do
    local queue = KEYS[index]
    local entries, pending, after, lag, wait = length(queue), 0, '-', false, -1
    local groups = redis.pcall('XINFO', 'GROUPS', queue)
    -- A queue that nobody used yet has no groups to tell of.
    if not groups.err then
        for _, group in ipairs(groups) do
            local facts = {}
            for field = 1, #group, 2 do facts[group[field]] = group[field + 1] end
            if facts['name'] == ARGV[1] then pending, lag, after = facts['pending'], facts['lag'], '(' .. facts['last-delivered-id'] end
        end
    end
    -- Redis leaves the lag out once an undelivered entry was deleted; ended entries are gone from the stream, so what is not pending waits.
    if not lag then lag = math.max(0, entries - pending) end
    if entries > pending then
        local first = redis.call('XRANGE', queue, after, '+', 'COUNT', 1)[1]
        if first then wait = math.max(0, now - tonumber(string.match(first[1], '^%d+'))) end
    end
    for _, value in ipairs({entries, pending, lag, wait}) do answer[#answer + 1] = value end
end
answer[#answer + 1] = length(KEYS[#KEYS])
return answer
