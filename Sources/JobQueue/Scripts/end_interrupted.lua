-- Ends interrupted jobs whose leases have expired, for workers without a free slot. One worker at a time does so.
-- KEYS  queues
-- ARGV  1 retention s  2 group  3 maximum expired entries looked at in each queue  4 ms in which further calls do nothing
--       5 bytes of entries read in each queue; the entry that reaches them is the last one
-- Returns the number of jobs ended.
if not redis.call('SET', beside(KEYS[1], 'ending'), '1', 'NX', 'PX', ARGV[4]) then return 0 end
local ended = 0
local now, maximum, maximum_bytes = tonumber(now_ms()), tonumber(ARGV[3]), tonumber(ARGV[5])
for _, queue in ipairs(KEYS) do
    local leases = leases_of(queue)
    local count = redis.pcall('ZCOUNT', leases, '-inf', now)
    -- Each call begins elsewhere, because one that reaches a maximum does not get to the rest.
    local first = type(count) == 'number' and count > 0 and now % count or 0
    local found = expired_entries(leases, now, first, maximum)
    local ids = found.err and {} or found
    if first > 0 then
        for _, id in ipairs(expired_entries(leases, now, 0, math.min(first, maximum - #ids))) do ids[#ids + 1] = id end
    end
    local bytes = 0
    for _, id in ipairs(ids) do
        if bytes >= maximum_bytes then break end
        local listed = redis.pcall('XRANGE', queue, id, id)
        local text = listed[1] and job_of(listed[1]) or ''
        bytes = bytes + #text
        local readable, job = pcall(cjson.decode, text)
        local name = readable and type(job) == 'table' and type(job.id) == 'string' and job.id
        local interrupt_key = name and beside(queue, 'interrupt:' .. name)
        local value = name and redis.pcall('GET', interrupt_key)
        if type(value) == 'string' then
            local record = beside(queue, 'job:' .. name)
            local known = redis.pcall('HMGET', record, 'state', 'entry', 'owner')
            if (known[1] == 'running' or known[1] == 'queued') and known[2] == class_of(queue) .. ' ' .. id then
                conclude_interrupted(record, beside(queue, 'log:' .. name), beside(queue, 'out:' .. name), interrupt_key, reason_of(value), ARGV[1])
                waits_no_more(record, known[3], queue)
                drop(queue, ARGV[2], id)
                ended = ended + 1
            end
        end
    end
end
return ended
