-- Functions shared by the scripts; prepended to each of them. They use only the keys passed to them and keys with the same hash tag.

local function now_ms()
    local time = redis.call('TIME')
    return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

local function is_terminal(state)
    return state == 'finished' or state == 'interrupted' or state == 'failed'
end

local NO_USAGE = '{"prompt_tokens":0,"completion_tokens":0,"estimated":false}'

-- The key `name` with the same hash tag as a queue.
local function beside(queue, name)
    return (string.gsub(queue, 'queue:%w+$', '', 1)) .. name
end

-- Adds the non-empty fields of `optional` to the arguments of an HSET.
local function add_present(fields, optional)
    for name, value in pairs(optional) do
        if value ~= '' then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
end

-- Removes a job from `waiting:<owner>`, the set of the record keys of an owner's waiting jobs. Jobs submitted by hand are not in it.
local function waits_no_more(record, owner, queue)
    if owner and owner ~= '' then redis.pcall('SREM', beside(queue, 'waiting:' .. owner), record) end
end

-- Deletes a key of the wrong type, so that it does not block other data. Returns whether the key was missing or had the right type.
local function own(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then redis.call('DEL', key) end
    return found == 'none' or found == kind
end

-- The number in a field of unknown origin, rounded down; 0 for anything outside 0 to 2147483647.
local function whole(text)
    local number = tonumber(text or '0')
    if not number or number ~= number or number < 0 or number > 2147483647 then return 0 end
    return math.floor(number)
end

-- Byte ledgers count the bytes of submitted jobs in the queues. Each is a hash with the field `total` and one field per entry.
-- `queued_bytes:<class>` counts one class; its fields are '<entry>' with the value '<bytes> <owner>'. `queued_bytes_of:<owner>` counts one owner in all classes; its
-- fields are '<class> <entry>' with the value '<bytes>'. An entry is removed from both when it is deleted from its stream. Entries added by hand are in neither.
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
    -- Only the total is left: the ledger is empty.
    if redis.call('HLEN', ledger) <= 1 then redis.call('DEL', ledger) return end
    redis.call('HSET', ledger, 'total', string.format('%.0f', math.max(0, total_of(ledger) - bytes)))
end

-- Removes an entry from the ledgers of its class and its owner.
local function release_bytes(queue, entry)
    local ledger = class_ledger(queue)
    local value = redis.pcall('HGET', ledger, entry)
    -- A ledger of the wrong type is replaced by the next submission.
    if type(value) ~= 'string' then return end
    local bytes, owner = string.match(value, '^(%d+) (.*)$')
    bytes = tonumber(bytes) or 0
    remove_from_ledger(ledger, entry, bytes)
    if owner and owner ~= '' and own(owner_ledger(queue, owner), 'hash') then
        remove_from_ledger(owner_ledger(queue, owner), class_of(queue) .. ' ' .. entry, bytes)
    end
end

-- Removes an entry from its queue and from the byte ledgers. XACK alone would leave it in the stream. A queue of the wrong type has no entries.
local function drop(queue, group, entry)
    redis.pcall('XACK', queue, group, entry)
    redis.pcall('XDEL', queue, entry)
    release_bytes(queue, entry)
end

-- Number of events that `usage_after_loss` reads.
local EVENTS_COUNTED = 10000

-- The usage JSON of a job whose worker was lost: what it recorded at its last renewal, and at least the text in the log. Always an estimate. A token counts four ASCII
-- characters or one other character.
local function usage_after_loss(recorded, log)
    local readable, usage = pcall(cjson.decode, recorded or '')
    if not readable or type(usage) ~= 'table' then usage = {} end
    local quarters = 0
    for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', EVENTS_COUNTED)) do
        local is_event, event = pcall(cjson.decode, entry[2][2] or '')
        local text = is_event and type(event) == 'table' and (event.type == 'text' or event.type == 'reasoning') and event.text
        if type(text) == 'string' then
            local _, ascii = string.gsub(text, '[%z\1-\127]', '')
            local _, others = string.gsub(text, '[\192-\255]', '')
            quarters = quarters + ascii + 4 * others
        end
    end
    local tokens = math.max(whole(usage.completion_tokens), math.ceil(quarters / 4))
    return string.format('{"prompt_tokens":%d,"completion_tokens":%d,"estimated":true}', whole(usage.prompt_tokens), tokens)
end

-- Whether the reply of a `redis.pcall` says that this server executes no writes, so that the caller must repeat the script on another one or later.
local function is_unexecuted(reply)
    return type(reply) == 'table' and reply.err and (string.find(reply.err, 'READONLY', 1, true) or string.find(reply.err, 'NOREPLICAS', 1, true)) and true
end

-- Makes a consumer the owner of an entry, also when its group or its place in the pending list was deleted. Returns the reply of XCLAIM, which may be an error.
local function own_entry(queue, group, consumer, entry, ...)
    local reply = redis.pcall('XCLAIM', queue, group, consumer, 0, entry, 'FORCE', 'JUSTID', ...)
    if type(reply) == 'table' and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
        redis.pcall('XGROUP', 'CREATE', queue, group, '0', 'MKSTREAM')
        reply = redis.pcall('XCLAIM', queue, group, consumer, 0, entry, 'FORCE', 'JUSTID', ...)
    end
    return reply
end

-- Deletes the events of a log and refuses further ones of this and older attempts: readers have seen another history with the same ids, so that the next attempt must not
-- continue this one.
local function discard_history(log, attempt)
    redis.pcall('XTRIM', log, 'MAXLEN', 0)
    redis.pcall('XSETID', log, attempt .. '-18446744073709551615')
end

-- Adds a dead letter and deletes the oldest ones beyond the maximum number of bytes; the newest one is always kept.
-- The field `bytes_before` of a letter is the size of all letters ever added before it, so that the total size follows from the first and the last letter.
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

-- Stored responses of the Responses API. `response:<job id>` is a hash; `response-bytes:<owner>` is the byte ledger of an owner's responses, whose fields are job ids.
-- Bytes counted per response for Redis' own overhead.
local RESPONSE_BASE = 512

-- The key of a stored response, from another key with the same hash tag.
local function response_of(key, job) return string.match(key, '^{[^}]*}:') .. 'response:' .. job end

local function ledger_bytes(ledger, field) return tonumber(redis.call('HGET', ledger, field) or '0') or 0 end

-- Keeps an ended job as long as its stored response, and counts the log in the owner's bytes. Returns the retention in seconds.
local function retention_of(record, log, retention)
    local job = string.match(record, '^{[^}]*}:job:(.*)$')
    local response = job and response_of(record, job)
    local owner = response and redis.pcall('HGET', response, 'owner')
    if type(owner) ~= 'string' then return retention end
    local expiry = math.max(redis.call('TTL', response), tonumber(retention))
    local ledger = string.match(record, '^{[^}]*}:') .. 'response-bytes:' .. owner
    local size = redis.pcall('MEMORY', 'USAGE', log)
    if own(ledger, 'hash') and type(size) == 'number' then
        add_to_ledger(ledger, job, size, string.format('%.0f', ledger_bytes(ledger, job) + size))
        if redis.call('TTL', ledger) < expiry then redis.call('EXPIRE', ledger, expiry) end
    end
    return expiry
end

-- Webhooks of responses that ran in the background. `webhooks` holds job ids by the time of their next delivery, `webhook:<job id>` what is delivered.
-- Time that a webhook is kept, s: longer than its delivery is tried.
local WEBHOOK_KEPT = 90000
-- Maximum number of webhooks of a partition; further ones are not delivered.
local WEBHOOKS_MAXIMUM = 100000

local function webhook_of(key, job) return string.match(key, '^{[^}]*}:') .. 'webhook:' .. job end

-- Queues the webhook of a job that ended, if it has a stored response that ran in the background. Never prevents the end of the job.
local function queue_webhook(record, event, state)
    local job = string.match(record, '^{[^}]*}:job:(.*)$')
    local fields = job and redis.pcall('HMGET', response_of(record, job), 'background', 'owner')
    if type(fields) ~= 'table' or fields[1] ~= '1' then return end
    local kind = ({interrupted = 'cancelled', failed = 'failed'})[state] or 'completed'
    local reason = string.match(event, '"reason":"([%w_]+)"')
    if state == 'finished' and (reason == 'length' or reason == 'content_filter') then kind = 'incomplete' end
    local webhooks = string.match(record, '^{[^}]*}:') .. 'webhooks'
    local size = own(webhooks, 'zset') and redis.pcall('ZCARD', webhooks) or 0
    if type(size) == 'number' and size >= WEBHOOKS_MAXIMUM then return end
    local now = now_ms()
    redis.pcall('HSET', webhook_of(record, job), 'type', 'response.' .. kind, 'owner', fields[2] or '', 'created', string.format('%.0f', math.floor(now / 1000)), 'attempts', '0')
    redis.pcall('EXPIRE', webhook_of(record, job), WEBHOOK_KEPT)
    redis.pcall('ZADD', webhooks, now, job)
    redis.pcall('EXPIRE', webhooks, WEBHOOK_KEPT)
end

-- Writes the terminal event and the record, sets the expiry of the job's keys and publishes the event. Empty fields of `optional` are skipped.
local function conclude(record, log, out, interrupt_key, id, event, state, usage, retention, optional)
    own(log, 'stream')
    redis.call('XADD', log, id, 'e', event)
    local fields = {'state', state, 'finished_ms', now_ms(), 'usage', usage}
    add_present(fields, optional)
    redis.call('HSET', record, unpack(fields))
    queue_webhook(record, event, state)
    local kept = retention_of(record, log, retention)
    redis.call('EXPIRE', record, kept)
    redis.call('EXPIRE', log, kept)
    redis.call('EXPIRE', interrupt_key, retention)
    -- The audio of the user's message.
    redis.call('DEL', (string.gsub(log, '^({[^}]*}:)log:', '%1audio:', 1)))
    redis.call('PUBLISH', out, '[' .. event .. ']')
end

-- Ends a job that no worker runs. The id of its event is <last attempt + 1>-0.
local function conclude_unrun(record, log, out, interrupt_key, state, fields, code, reason, retention)
    local known = redis.call('HMGET', record, 'attempt', 'usage')
    local id = (whole(known[1]) + 1) .. '-0'
    local usage = known[2] or NO_USAGE
    local event = '{"id":"' .. id .. '","type":"' .. state .. '",' .. fields .. ',"usage":' .. usage .. '}'
    conclude(record, log, out, interrupt_key, id, event, state, usage, retention, {code = code, reason = reason})
end

local function conclude_interrupted(record, log, out, interrupt_key, reason, retention)
    conclude_unrun(record, log, out, interrupt_key, 'interrupted', '"reason":' .. cjson.encode(reason) .. ',"phase":"queued"', '', reason, retention)
end

local function conclude_failed(record, log, out, interrupt_key, code, message, retryable, retention)
    local fields = '"code":"' .. code .. '","message":' .. cjson.encode(message) .. ',"retryable":' .. (retryable and 'true' or 'false')
    conclude_unrun(record, log, out, interrupt_key, 'failed', fields, code, '', retention)
end

-- The reason in the value of an interrupt key; USER_STOP for a value that is not the contract's JSON.
local function reason_of(interrupt_value)
    local ok, decoded = pcall(cjson.decode, interrupt_value)
    if ok and type(decoded) == 'table' and type(decoded.reason) == 'string' then return decoded.reason end
    return 'USER_STOP'
end

-- Writes a job's interrupt key. Ends the job if it is queued; signals its worker if it is running. Returns the state before the interrupt ('unknown' without a record),
-- or the error with which Redis rejected the key.
-- queues: the queues of the partition by class. owner: '' for any.
local function interrupt(record, log, out, interrupt_key, cancel, queues, value, reason, owner, group, retention)
    local found = redis.call('HMGET', record, 'state', 'owner', 'entry')
    local state = found[1]
    if not state or (owner ~= '' and found[2] ~= owner) then return 'unknown' end
    if is_terminal(state) then return state end
    local stored = redis.pcall('SET', interrupt_key, value, 'EX', 86400, 'NX')
    if type(stored) == 'table' and stored.err then
        -- Redis is out of memory. The worker is signalled anyway; the caller receives the error because nothing was stored.
        if state == 'running' then redis.call('PUBLISH', cancel, value) end
        return stored
    end
    if state == 'queued' then
        local interrupt_value = redis.pcall('GET', interrupt_key)
        conclude_interrupted(record, log, out, interrupt_key, reason_of(type(interrupt_value) == 'string' and interrupt_value or value), retention)
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
