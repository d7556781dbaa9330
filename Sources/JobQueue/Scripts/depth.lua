-- Counts the waiting and running jobs of a partition. Read-only. A key that is not a stream counts as empty.
-- KEYS  the queues, then the dead letters     ARGV  1 group
-- Returns a flat list: for each queue its entries, delivered entries that have not ended, undelivered entries, and the waiting time of the oldest undelivered entry in
-- ms (or -1); then the number of dead letters.
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
    -- An unused queue has no consumer group.
    if not groups.err then
        for _, group in ipairs(groups) do
            local facts = {}
            for field = 1, #group, 2 do facts[group[field]] = group[field + 1] end
            if facts['name'] == ARGV[1] then pending, lag, after = facts['pending'], facts['lag'], '(' .. facts['last-delivered-id'] end
        end
    end
    -- Waiting entries that are sorted by tenant are pending ones of a consumer that belongs to no worker.
    local sorted, first_sorted = 0, nil
    if pending > 0 then
        local summary = redis.call('XPENDING', queue, ARGV[1])
        for _, consumer in ipairs(summary[4] or {}) do
            if consumer[1] == WAITING_CONSUMER then sorted = tonumber(consumer[2]) end
        end
        if sorted > 0 then first_sorted = redis.call('XPENDING', queue, ARGV[1], '-', '+', 1, WAITING_CONSUMER)[1] end
        pending = pending - sorted
        if lag then lag = math.min(lag + sorted, math.max(0, entries - pending)) end
    end
    -- Redis omits the lag after an undelivered entry was deleted. Entries of ended jobs are deleted, so every entry that is not pending is waiting.
    if not lag then lag = math.max(0, entries - pending) end
    if entries > pending then
        local first = first_sorted or redis.call('XRANGE', queue, after, '+', 'COUNT', 1)[1]
        if first then wait = math.max(0, now - tonumber(string.match(first[1], '^%d+'))) end
    end
    for _, value in ipairs({entries, pending, lag, wait}) do answer[#answer + 1] = value end
end
answer[#answer + 1] = length(KEYS[#KEYS])
return answer
