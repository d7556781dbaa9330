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
    if owner and owner ~= '' then redis.pcall('SREM', beside(queue, 'waiting:' .. owner), record) end
end

-- Deletes a key that holds another type than it should, so that a spoilt key harms only what it held.
local function own(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then redis.call('DEL', key) end
    return found == 'none' or found == kind
end

-- The number in a field that anybody may have written; 0 for anything else.
local function whole(text)
    local number = tonumber(text or '0')
    if not number or number ~= number or number < 0 or number > 2147483647 then return 0 end
    return math.floor(number)
end

-- Byte ledgers count what submitted jobs occupy in the queues. Each is a hash: the field `total`, and for each entry its bytes.
-- `queued_bytes:<class>`: of a class; the value of an entry is '<bytes> <owner>'. `queued_bytes_of:<owner>`: of an owner, all classes; the field of an entry is
-- '<class> <entry>'. An entry leaves both when it leaves its stream. Entries added by hand are in neither.
local LEDGER_EXPIRY = 86400

local function class_of(queue) return string.match(queue, 'queue:(%w+)$') end

local function class_ledger(queue) return beside(queue, 'queued_bytes:' .. class_of(queue)) end

local function owner_ledger(queue, owner) return beside(queue, 'queued_bytes_of:' .. owner) end

local function total_of(ledger) return tonumber(redis.call('HGET', ledger, 'total') or '0') or 0 end

local function add_to_ledger(ledger, field, bytes, value)
    redis.call('HSET', ledger, field, value, 'total', string.format('%.0f', total_of(ledger) + bytes))
    redis.call('EXPIRE', ledger, LEDGER_EXPIRY)
end

local function remove_from_ledger(ledger, field, bytes)
    if redis.call('HDEL', ledger, field) == 0 then return end
    -- Only the total is left: nothing waits.
    if redis.call('HLEN', ledger) <= 1 then redis.call('DEL', ledger) return end
    redis.call('HSET', ledger, 'total', string.format('%.0f', math.max(0, total_of(ledger) - bytes)))
end

local function release_bytes(queue, entry)
    local ledger = class_ledger(queue)
    local value = redis.pcall('HGET', ledger, entry)
    -- A ledger of another type is replaced by the next submission.
    if type(value) ~= 'string' then return end
    local bytes, owner = string.match(value, '^(%d+) (.*)$')
    bytes = tonumber(bytes) or 0
    remove_from_ledger(ledger, entry, bytes)
    if owner and owner ~= '' and own(owner_ledger(queue, owner), 'hash') then
        remove_from_ledger(owner_ledger(queue, owner), class_of(queue) .. ' ' .. entry, bytes)
    end
end

-- Removes an entry from its queue (acknowledged alone it would stay in the stream) and from the byte ledgers. A queue of another type has no entries.
local function drop(queue, group, entry)
    redis.pcall('XACK', queue, group, entry)
    redis.pcall('XDEL', queue, entry)
    release_bytes(queue, entry)
end

-- Adds a dead letter and deletes the oldest ones beyond the maximum of bytes (the newest always stays).
-- Each letter carries in `bytes_before` the bytes of all letters added before it, so that the first and the last one tell what lies between them.
local LETTERS_DELETED_AT_ONCE = 1000
local function bury(dead, maximum, maximum_bytes, job, code, message, crashes)
    local function field(letters, name)
        for index = 1, letters[1] and #letters[1][2] or 0, 2 do
            if letters[1][2][index] == name then return letters[1][2][index + 1] end
        end
        return ''
    end
    own(dead, 'stream')
    local last = redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)
    local before = (tonumber(field(last, 'bytes_before')) or 0) + #field(last, 'job')
    local added = redis.call('XADD', dead, 'MAXLEN', '~', maximum, '*', 'job', job, 'code', code, 'message', message, 'crashes', crashes, 'bytes_before',
        string.format('%.0f', before))
    for _ = 1, LETTERS_DELETED_AT_ONCE do
        local first = redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)
        if not first[1] or first[1][1] == added then return end
        if before + #job - (tonumber(field(first, 'bytes_before')) or 0) <= tonumber(maximum_bytes) then return end
        redis.call('XDEL', dead, first[1][1])
    end
end

-- Writes the terminal event and what goes with it. What `optional` says of the record may be ''.
local function conclude(record, log, out, intent, id, event, state, usage, retention, optional)
    own(log, 'stream')
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
    local id = (whole(known[1]) + 1) .. '-0'
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
        local wish = redis.pcall('GET', intent)
        conclude_interrupted(record, log, out, intent, reason_of(type(wish) == 'string' and wish or value), retention)
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
