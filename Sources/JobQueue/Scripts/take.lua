-- Delivers entries to a worker: first those whose leases have expired or that were returned, then waiting ones. Each in the order of the queues; within a queue waiting
-- entries are served by tenant, see turns.lua.
-- KEYS  queues in the order in which they are read
-- ARGV  1 group  2 worker  3 maximum count  4 bytes of job JSON after which no further entries are read  5 lease ms  6 channel that announces returned jobs
--       7 ms for which the worker is known to be idle if it receives nothing (0: none)  8 '1': serve although undelivered entries are not sorted yet
-- Returns {entries, faults, more}. entries: {index of the queue, entry id, job JSON or false, 1 if the lease has expired else 0, …}, four values per entry.
-- faults: {index of the queue, error, …}, two values per unreadable queue; the other queues are read. more: 1 if the call must be repeated: it has reached a limit of
-- work before it found out which entries are next.
--
-- When all waiting entries fit they are delivered at once, as there is nothing to choose. Otherwise they are sorted first. Sorted entries belong to WAITING_CONSUMER.
-- Maximum number of entries per read. The first read delivers few entries, and later ones only as many as fit if they are as large as the largest one so far: every job
-- passes through this script, which blocks Redis for some milliseconds per megabyte.
local STEP = 8
-- Work of one call: entries sorted, and bytes of their job JSON; missing entries skipped.
local SORTED, SORTED_BYTES, SKIPPED = 500, 524288, 200
local group, worker = ARGV[1], ARGV[2]
local remaining_count, remaining_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local lease, is_forced = tonumber(ARGV[5]), ARGV[8] == '1'
local now = tonumber(now_ms())
local expiry = digits(now + lease)
local taken, faults, more = {}, {}, 0
local largest, sorted, sorted_bytes, skipped = 1, 0, 0, 0
local is_waiting = false
-- Delivered entries, by queue.
local leased = {}
-- Whether any queue had sorted entries when the call began.
local has_turns

local function deliver(index, queue, entry, expired)
    local job = job_of(entry)
    remaining_count = remaining_count - 1
    if job then
        remaining_bytes = remaining_bytes - #job
        largest = math.max(largest, #job)
    end
    local entries = leased[queue] or {}
    leased[queue] = entries
    entries[#entries + 1] = entry[1]
    local length = #taken
    taken[length + 1], taken[length + 2], taken[length + 3], taken[length + 4] = index, entry[1], job, expired
end

local function has_room() return remaining_count > 0 and remaining_bytes > 0 end

-- Reads undelivered entries. Returns an empty list if there are none, or raises the error of Redis.
local function read(queue, consumer, count)
    local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', queue, '>')
    return reply and reply[1][2] or {}
end

local function deliver_expired(index, queue)
    local leases = leases_of(queue)
    local found = expired_entries(leases, now, 0, remaining_count)
    if found.err then
        own(leases, 'zset')
        return
    end
    for _, id in ipairs(found) do
        if not has_room() then return end
        -- Workers of earlier versions renew without the index.
        local entry = redis.call('XCLAIM', queue, group, worker, lease, id, 'FORCE')[1]
        if entry and entry[2] then
            deliver(index, queue, entry, 1)
        elseif #redis.call('XPENDING', queue, group, id, id, 1) > 0 and #redis.call('XRANGE', queue, id, id) > 0 then
            set_lease(queue, id, expiry)
        else
            redis.call('XACK', queue, group, id)
            redis.call('ZREM', leases, id)
        end
    end
end

local function sort_read(queue, entries)
    if #entries == 0 then return end
    local ids = {}
    for position, entry in ipairs(entries) do ids[position] = entry[1] end
    disown(queue, group, ids)
    for _, entry in ipairs(entries) do
        local job = job_of(entry)
        sorted, sorted_bytes = sorted + 1, sorted_bytes + (job and #job or 0)
    end
    sort_entries(queue, entries)
end

-- Sorts undelivered entries. Returns whether all of them are sorted.
local function sort_undelivered(queue)
    local step = 2
    while sorted < SORTED and sorted_bytes < SORTED_BYTES do
        local entries = read(queue, WAITING_CONSUMER, step)
        sort_read(queue, entries)
        if #entries < step then return true end
        local average = math.max(1, sorted_bytes / sorted)
        step = math.max(1, math.min(100, step * 2, math.floor((SORTED_BYTES - sorted_bytes) / average)))
    end
    return false
end

local function deliver_waiting(index, queue)
    if has_turns == nil then
        local turns = {}
        for position, key in ipairs(KEYS) do turns[position] = turns_of(key) end
        has_turns = redis.call('EXISTS', unpack(turns)) > 0
    end
    if not has_turns or redis.call('EXISTS', turns_of(queue)) == 0 then
        -- One entry more than fits shows that there is a choice.
        local entries, step = {}, 2
        local bytes = remaining_bytes
        while #entries <= remaining_count and bytes > 0 do
            local count = math.min(remaining_count + 1 - #entries, step, math.max(1, math.floor(bytes / largest)))
            local read_entries = read(queue, worker, count)
            for _, entry in ipairs(read_entries) do
                entries[#entries + 1] = entry
                local size = #(job_of(entry) or '')
                bytes, largest = bytes - size, math.max(largest, size)
            end
            if #read_entries < count then
                for _, entry in ipairs(entries) do deliver(index, queue, entry, 0) end
                return
            end
            step = math.min(STEP, step * 2)
        end
        sort_read(queue, entries)
    end
    if not sort_undelivered(queue) and not is_forced then
        more = 1
        return
    end
    -- The first entry shows how large they are; see STEP.
    local step = 0
    local function room()
        if not has_room() then return 0 end
        step = math.max(1, math.min(STEP, step * 2))
        return math.min(remaining_count, step, math.max(1, math.floor(remaining_bytes / largest)))
    end
    local is_left = deliver_turns(queue, group, worker, room, function(entry) deliver(index, queue, entry, 0) end, function(count)
        skipped = skipped + count
        if skipped >= SKIPPED then more = 1 end
        return skipped < SKIPPED
    end)
    is_waiting = is_waiting or is_left
end

-- Runs a step for a queue; an error concerns this queue only. Returns the error that concerns the whole call.
local function attempt(step, index, queue)
    local ok, problem = pcall(step, index, queue)
    if ok then return nil end
    local message = type(problem) == 'table' and problem.err or tostring(problem)
    if is_unexecuted({err = message}) and #taken == 0 then return {err = message} end
    if string.find(message, 'WRONGTYPE', 1, true) and redis.call('TYPE', queue).ok == 'stream' then
        own_turns(queue)
    end
    for position = 1, #faults, 2 do
        if faults[position] == index then return nil end
    end
    faults[#faults + 1] = index
    faults[#faults + 1] = message
end

for _, step in ipairs({deliver_expired, deliver_waiting}) do
    for index, queue in ipairs(KEYS) do
        if has_room() and more == 0 then
            local problem = attempt(step, index, queue)
            if problem then return problem end
        end
    end
end
for queue, entries in pairs(leased) do set_leases(queue, entries, expiry) end
-- Workers that wait for jobs, by the time until which they do so.
local idle = beside(KEYS[1], 'idle')
if #taken > 0 then
    redis.pcall('ZREM', idle, worker)
elseif tonumber(ARGV[7]) > 0 and more == 0 then
    redis.pcall('ZREMRANGEBYSCORE', idle, '-inf', now)
    own(idle, 'zset')
    redis.pcall('ZADD', idle, digits(now + ARGV[7]), worker)
    redis.pcall('PEXPIRE', idle, ARGV[7])
end
-- Waiting entries that are sorted wake no worker that blocks on the queue.
if is_waiting then
    local idle_count = redis.pcall('ZCOUNT', idle, now, '+inf')
    if type(idle_count) == 'number' and idle_count > 0 then redis.call('PUBLISH', ARGV[6], 'waiting') end
end
return {taken, faults, more}
