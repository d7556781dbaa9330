-- What several scripts need; put before each of them. Uses no keys but those it is given and those beside them, under their hash tag.

local function now_ms()
    local time = redis.call('TIME')
    return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

local function is_terminal(state)
    return state == 'finished' or state == 'interrupted' or state == 'failed'
end

local NO_USAGE = '{"prompt_tokens":0,"completion_tokens":0,"estimated":false}'

-- A key under the same hash tag as a queue.
local function beside(queue, name)
    return (string.gsub(queue, 'queue:%w+$', '', 1)) .. name
end

-- Adds those that have a value to the arguments of an HSET.
local function add_present(fields, optional)
    for name, value in pairs(optional) do
        if value ~= '' then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
end

-- `waiting:<owner>` is the set of an owner's waiting jobs, by the keys of their records. Jobs submitted by hand are not in it.
local function waits_no_more(record, owner, queue)
    if owner and owner ~= '' then redis.call('SREM', beside(queue, 'waiting:' .. owner), record) end
end

-- Removes an entry from its queue: acknowledged alone it would stay in the stream.
local function drop(queue, group, entry)
    redis.call('XACK', queue, group, entry)
    redis.call('XDEL', queue, entry)
end

-- Writes the terminal event and what goes with it. What `optional` says of the record may be ''.
local function conclude(record, log, out, intent, id, event, state, usage, retention, optional)
    redis.call('XADD', log, id, 'e', event)
    local fields = {'state', state, 'finished_ms', now_ms(), 'usage', usage}
    add_present(fields, optional)
    redis.call('HSET', record, unpack(fields))
    redis.call('EXPIRE', record, retention)
    redis.call('EXPIRE', log, retention)
    redis.call('EXPIRE', intent, retention)
    redis.call('PUBLISH', out, '[' .. event .. ']')
end

-- Ends a job that no worker runs: its event is <last attempt + 1>-0.
local function conclude_unrun(record, log, out, intent, state, fields, code, reason, retention)
    local known = redis.call('HMGET', record, 'attempt', 'usage')
    local id = (tonumber(known[1] or '0') + 1) .. '-0'
    local usage = known[2] or NO_USAGE
    local event = '{"id":"' .. id .. '","type":"' .. state .. '",' .. fields .. ',"usage":' .. usage .. '}'
    conclude(record, log, out, intent, id, event, state, usage, retention, {code = code, reason = reason})
end

local function conclude_interrupted(record, log, out, intent, reason, retention)
    conclude_unrun(record, log, out, intent, 'interrupted', '"reason":' .. cjson.encode(reason) .. ',"phase":"queued"', '', reason, retention)
end

local function conclude_failed(record, log, out, intent, code, message, retryable, retention)
    local fields = '"code":"' .. code .. '","message":' .. cjson.encode(message) .. ',"retryable":' .. (retryable and 'true' or 'false')
    conclude_unrun(record, log, out, intent, 'failed', fields, code, '', retention)
end

-- The reason in a durable key's value, whoever wrote it.
local function reason_of(intent_value)
    local ok, decoded = pcall(cjson.decode, intent_value)
    if ok and type(decoded) == 'table' and type(decoded.reason) == 'string' then return decoded.reason end
    return 'USER_STOP'
end

-- Stores the wish that a job ends and carries it out where that is possible. Returns the state as found ('unknown' without a record), or the error that kept it
-- from being stored.
-- queues: the partition's, by class. owner: '' for any.
local function interrupt(record, log, out, intent, cancel, queues, value, reason, owner, group, retention)
    local found = redis.call('HMGET', record, 'state', 'owner', 'entry')
    local state = found[1]
    if not state or (owner ~= '' and found[2] ~= owner) then return 'unknown' end
    if is_terminal(state) then return state end
    local stored = redis.pcall('SET', intent, value, 'EX', 86400, 'NX')
    if type(stored) == 'table' and stored.err then
        -- No memory: its worker is told all the same, the caller hears that nothing was stored.
        if state == 'running' then redis.call('PUBLISH', cancel, value) end
        return stored
    end
    if state == 'queued' then
        conclude_interrupted(record, log, out, intent, reason_of(redis.call('GET', intent)), retention)
        waits_no_more(record, found[2], queues.standard)
        if found[3] then
            local class, entry = string.match(found[3], '^(%S+) (%S+)$')
            if class and queues[class] then drop(queues[class], group, entry) end
        end
    else
        redis.call('PUBLISH', cancel, value)
    end
    return state
end
