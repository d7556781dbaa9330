-- Service of waiting jobs by tenant: functions for the scripts that sort or deliver them.
--
-- Weighted fair queuing by estimated tokens, as deficit round robin without its rounds: each owner has a counter of the tokens that it was given, divided by its weight,
-- and the owner with the smallest counter is served next. An owner who begins to wait starts at the counter of the owner served last, so that neither its own pauses nor
-- the history of others give an advantage. Within an owner entries are served in the order of their ids.
--
-- Keys of a queue, beside it: `turn:<class>:<owner>`, sorted set of entries; `turns:<class>`, sorted set of owners by counter; `turns-past:<class>`, sorted set of the
-- counters of owners without waiting entries; `turns-begun:<class>`, the counter at which the last service began; see `tenant_of` for the weights.

-- Completion tokens of a job that does not limit them, and the largest limit that counts.
local DEFAULT_COMPLETION, MAXIMUM_COMPLETION = 500, 1000000

-- Estimated tokens of a job: one per four bytes, and the completion tokens that it asks for. Quotes inside JSON strings are escaped, so the names are found as keys only.
local function estimated_tokens(job)
    local completion = DEFAULT_COMPLETION
    for _, name in ipairs({'"max_tokens":', '"max_completion_tokens":'}) do
        local _, stop = string.find(job, name, 1, true)
        local number = stop and tonumber(string.match(job, '^%s*(%d+)', stop + 1))
        if number and number > 0 then completion = math.min(number, MAXIMUM_COMPLETION) end
    end
    return math.ceil(#job / 4) + completion
end

-- The number by which Redis sorts an entry id. Ids of the same ms beyond the 1,024th are sorted as text.
local function order_of(entry)
    local ms, sequence = string.match(entry, '^(%d+)-(%d+)$')
    return string.format('%.0f', tonumber(ms) * 1024 + math.min(tonumber(sequence), 1023))
end

-- The field `job` of an entry, or false.
local function job_of(entry)
    local fields = entry[2] or {}
    for i = 1, #fields, 2 do
        if fields[i] == 'job' then return fields[i + 1] end
    end
    return false
end

-- The owner of an entry: as submitted, else as its JSON says. '' for none.
local function owner_of(queue, entry, job)
    local submitted = redis.pcall('HGET', class_ledger(queue), entry)
    if type(submitted) == 'string' then return string.match(submitted, '^%d+ (.*)$') or '' end
    local readable, decoded = pcall(cjson.decode, job or '')
    if readable and type(decoded) == 'table' and type(decoded.owner) == 'string' then return decoded.owner end
    return ''
end

-- Adds an entry to the waiting ones of its owner.
local function sort_entry(queue, entry, job)
    local owner = owner_of(queue, entry, job)
    local turns = turns_of(queue)
    redis.call('ZADD', waiting_of(queue, owner), order_of(entry), entry)
    if not redis.call('ZSCORE', turns, owner) then
        local class = class_of(queue)
        local past, begun = beside(queue, 'turns-past:' .. class), beside(queue, 'turns-begun:' .. class)
        local given = math.max(tonumber(redis.call('ZSCORE', past, owner) or '0'), tonumber(redis.call('GET', begun) or '0'))
        redis.call('ZADD', turns, string.format('%.3f', given), owner)
        redis.call('ZREM', past, owner)
    end
end

-- Deletes the keys of the turns of a queue that have the wrong type. The walk of the pending entries sorts again what was lost with them.
local function own_turns(queue)
    local class = class_of(queue)
    for _, name in ipairs({'turns:', 'turns-past:'}) do own(beside(queue, name .. class), 'zset') end
    own(beside(queue, 'turns-begun:' .. class), 'string')
    for _, owner in ipairs(redis.call('ZRANGE', turns_of(queue), 0, -1)) do own(waiting_of(queue, owner), 'zset') end
end

-- Gives entries that were delivered to this or another consumer to no worker.
local function disown(queue, group, ids)
    local command = {'XCLAIM', queue, group, WAITING_CONSUMER, 0}
    for _, id in ipairs(ids) do command[#command + 1] = id end
    command[#command + 1] = 'IDLE'
    command[#command + 1] = UNOWNED_IDLE
    command[#command + 1] = 'JUSTID'
    redis.call(unpack(command))
end

-- Delivers the next waiting entry to a worker.
-- Returns the entry, or nil when no entry waits, or false when the next one no longer exists or another worker has it.
local function deliver_next(queue, group, worker)
    local turns = turns_of(queue)
    local head = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')
    local owner, given = head[1], tonumber(head[2])
    if not owner then return nil end
    local waiting = waiting_of(queue, owner)
    local id = redis.call('ZPOPMIN', waiting)[1]
    local entry
    if id then
        -- Workers of earlier versions take waiting entries over; these are not idle.
        entry = redis.call('XCLAIM', queue, group, worker, UNOWNED_IDLE / 2, id, 'FORCE')[1]
        if entry and not entry[2] then
            -- Redis 6.2 lists deleted entries.
            redis.call('XACK', queue, group, id)
            entry = nil
        end
    end
    if entry then
        local class = class_of(queue)
        local weight = tonumber(string.match(tenant_of(queue, owner), '^%S+') or '') or 1
        redis.call('SET', beside(queue, 'turns-begun:' .. class), string.format('%.3f', given))
        given = given + estimated_tokens(job_of(entry) or '') / math.max(weight, 0.001)
    end
    if redis.call('EXISTS', waiting) == 0 then
        end_turns(queue, owner, string.format('%.3f', given))
    elseif entry then
        redis.call('ZADD', turns, string.format('%.3f', given), owner)
    end
    return entry or false
end
