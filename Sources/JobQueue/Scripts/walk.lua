-- Safety net of the lease index and of the sorting by tenant: looks at one page of a queue's pending entries that were idle for a lease. An entry of a worker that is not
-- in the index, because a worker of an earlier version claimed it or its reply was lost, is added as expired. Waiting entries are sorted again if some are missing.
-- KEYS  1 queue
-- ARGV  1 group  2 lease ms  3 entry id at which the page begins ('-': the first)  4 maximum entries  5 '1': sort waiting entries again
-- Returns {id at which the next page begins or '', 1 if waiting entries are sorted again, entries added to the index, entries sorted}.
local queue, group = KEYS[1], ARGV[1]
local must_sort = ARGV[5] == '1'
local function count_waiting()
    local summary = redis.call('XPENDING', queue, group)
    local pending, known = 0, 0
    for _, consumer in ipairs(summary[4] or {}) do
        if consumer[1] == WAITING_CONSUMER then pending = tonumber(consumer[2]) end
    end
    for _, owner in ipairs(redis.call('ZRANGE', turns_of(queue), 0, -1)) do known = known + redis.call('ZCARD', waiting_of(queue, owner)) end
    return pending, known
end
if ARGV[3] == '-' then
    local counted, pending, known = pcall(count_waiting)
    must_sort = not counted or pending > known
    if must_sort then own_turns(queue) end
end
local page = redis.pcall('XPENDING', queue, group, 'IDLE', ARGV[2], ARGV[3], '+', ARGV[4])
if page.err then return {'', 0, 0, 0} end
-- Bytes of job JSON per call.
local SORTED_BYTES = 524288
local added, sorted, bytes = 0, 0, 0
local last = page[tonumber(ARGV[4])]
for _, found in ipairs(page) do
    local id, consumer = found[1], found[2]
    if consumer ~= WAITING_CONSUMER then
        if not lease_expiry(queue, id) then
            set_lease(queue, id, 0)
            added = added + 1
        end
    elseif must_sort then
        local entry = redis.call('XRANGE', queue, id, id)[1]
        if entry then
            local job = job_of(entry)
            sort_entries(queue, {entry})
            sorted, bytes = sorted + 1, bytes + (job and #job or 0)
            if bytes > SORTED_BYTES then
                last = found
                break
            end
        else
            redis.call('XACK', queue, group, id)
        end
    end
end
return {last and '(' .. last[1] or '', must_sort and 1 or 0, added, sorted}
