-- Returns delivered entries to the pending list that are on it no more, because an operator deleted their consumer (XGROUP DELCONSUMER): no worker could take them over.
-- Looks at the oldest entries of each queue, so that the cost does not depend on the number of jobs; a later entry becomes one of the oldest when the jobs before it end.
-- KEYS  queues
-- ARGV  1 group  2 consumer that gets the entries  3 entries looked at in each queue  4 bytes of job JSON after which no further entries are read  5 lease ms
-- Returns the number of entries.
local restored = 0
for _, queue in ipairs(KEYS) do
    local groups = redis.pcall('XINFO', 'GROUPS', queue)
    local delivered
    for _, group in ipairs(groups.err and {} or groups) do
        local is_ours = false
        for i = 1, #group, 2 do
            if group[i] == 'name' then is_ours = group[i + 1] == ARGV[1] end
            if group[i] == 'last-delivered-id' and is_ours then delivered = group[i + 1] end
        end
    end
    local from, bytes = '-', 0
    for _ = 1, delivered and tonumber(ARGV[3]) or 0 do
        local entry = redis.call('XRANGE', queue, from, delivered, 'COUNT', 1)[1]
        if not entry then break end
        local id = entry[1]
        for _, text in ipairs(entry[2]) do bytes = bytes + #text end
        if #redis.call('XPENDING', queue, ARGV[1], id, id, 1) == 0 then
            redis.call('XCLAIM', queue, ARGV[1], ARGV[2], 0, id, 'FORCE', 'JUSTID')
            if not redis.call('ZSCORE', leases_of(queue), id) then set_lease(queue, id, string.format('%.0f', now_ms() + ARGV[5])) end
            restored = restored + 1
        end
        if bytes > tonumber(ARGV[4]) then break end
        from = '(' .. id
    end
end
return restored
