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
    return digits(tonumber(ms) * 1024 + math.min(tonumber(sequence), 1023))
end

-- The owner that the JSON of a job names. '' for none.
local function owner_in(job)
    if not job or not string.find(job, '"owner"', 1, true) then return '' end
    local readable, decoded = pcall(cjson.decode, job)
    if readable and type(decoded) == 'table' and type(decoded.owner) == 'string' then return decoded.owner end
    return ''
end

-- The owners of entries: as submitted, else as their JSON says.
local function owners_of(queue, entries)
    local ids, owners = {}, {}
    for position, entry in ipairs(entries) do ids[position] = entry[1] end
    local submitted = redis.pcall('HMGET', class_ledger(queue), unpack(ids))
    for position, entry in ipairs(entries) do
        local value = submitted[position]
        owners[position] = value and (string.match(value, '^%d+ (.*)$') or '') or owner_in(job_of(entry))
    end
    return owners
end

-- Adds entries to the waiting ones of their owners.
local function sort_entries(queue, entries)
    local waiting, names = {}, {}
    for position, owner in ipairs(owners_of(queue, entries)) do
        local id = entries[position][1]
        if not waiting[owner] then
            waiting[owner] = {}
            names[#names + 1] = owner
        end
        local scores = waiting[owner]
        scores[#scores + 1] = order_of(id)
        scores[#scores + 1] = id
    end
    local turns, class = turns_of(queue), class_of(queue)
    for _, owner in ipairs(names) do
        redis.call('ZADD', waiting_of(queue, owner), unpack(waiting[owner]))
        if not redis.call('ZSCORE', turns, owner) then
            local past, begun = beside(queue, 'turns-past:' .. class), beside(queue, 'turns-begun:' .. class)
            local given = math.max(tonumber(redis.call('ZSCORE', past, owner) or '0'), tonumber(redis.call('GET', begun) or '0'))
            redis.call('ZADD', turns, string.format('%.3f', given), owner)
            redis.call('ZREM', past, owner)
        end
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

-- Makes a worker the owner of waiting entries. Returns those that exist and that no other worker has.
local function claim_waiting(queue, group, worker, ids)
    -- Workers of earlier versions take waiting entries over; these are not idle.
    local command = {'XCLAIM', queue, group, worker, UNOWNED_IDLE / 2}
    for _, id in ipairs(ids) do command[#command + 1] = id end
    command[#command + 1] = 'FORCE'
    local entries = {}
    for _, entry in ipairs(redis.call(unpack(command))) do
        if entry and entry[2] then
            entries[#entries + 1] = entry
        elseif entry then
            -- Redis 6.2 lists deleted entries.
            redis.call('XACK', queue, group, entry[1])
        end
    end
    return entries
end

-- Delivers waiting entries to a worker, in turn. Several at once while only one owner has any.
-- room: returns how many more entries may be delivered at once; 0: none. deliver: called with each entry. skipped: called with the number of entries that do not exist or
-- that another worker has; returns whether to continue.
-- Returns whether waiting entries are left.
local function deliver_turns(queue, group, worker, room, deliver, skipped)
    local turns, class = turns_of(queue), class_of(queue)
    local weights, begun = {}, nil
    local function weight_of(owner)
        if not weights[owner] then weights[owner] = math.max(0.001, tonumber(string.match(tenant_of(queue, owner), '^%S+') or '') or 1) end
        return weights[owner]
    end
    local maximum = room()
    while maximum > 0 do
        local heads = redis.call('ZRANGE', turns, 0, 1, 'WITHSCORES')
        local owner, given = heads[1], tonumber(heads[2])
        if not owner then break end
        if heads[3] then maximum = 1 end
        local waiting, ids = waiting_of(queue, owner), {}
        local popped = redis.call('ZPOPMIN', waiting, maximum)
        for position = 1, #popped, 2 do ids[#ids + 1] = popped[position] end
        local entries = #ids > 0 and claim_waiting(queue, group, worker, ids) or {}
        for _, entry in ipairs(entries) do
            begun = given
            given = given + estimated_tokens(job_of(entry) or '') / weight_of(owner)
            deliver(entry)
        end
        if #ids < maximum or redis.call('EXISTS', waiting) == 0 then
            end_turns(queue, owner, string.format('%.3f', given))
        elseif #entries > 0 then
            redis.call('ZADD', turns, string.format('%.3f', given), owner)
        end
        if #entries < #ids and not skipped(#ids - #entries) then break end
        maximum = room()
    end
    local is_left = redis.call('EXISTS', turns) == 1
    if begun and is_left then redis.call('SET', beside(queue, 'turns-begun:' .. class), string.format('%.3f', begun)) end
    return is_left
end
