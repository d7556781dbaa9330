-- Functions that end jobs and keep what they leave behind, for the scripts of jobs. They use those of shared.lua and usage.lua.

-- Deletes the events of a log and refuses further ones of this and older attempts: readers have seen another history with the same ids, so that the next attempt must not
-- continue this one.
local function discard_history(log, attempt)
    local last = attempt .. '-18446744073709551615'
    -- XSETID does not create a log that is missing.
    if own(log, 'stream') and redis.call('EXISTS', log) == 0 then redis.call('XADD', log, last, 'e', '{}') end
    redis.pcall('XTRIM', log, 'MAXLEN', 0)
    redis.pcall('XSETID', log, last)
end

-- Whether an entry of a log is the end of its job.
local function is_end(entry)
    local readable, event = pcall(cjson.decode, entry[2][2] or '')
    return readable and type(event) == 'table' and is_terminal(event.type)
end

-- The number of the attempt after those of a record and its log, which is newer if another program has overwritten or deleted the record. The last id of a log also tells
-- of events that were deleted. Ids that no worker writes count as none.
local function next_attempt(log, attempt)
    local info, newest = redis.pcall('XINFO', 'STREAM', log), whole(attempt)
    for index = 1, info.err and 0 or #info, 2 do
        local name, value = info[index], info[index + 1]
        local id = name == 'last-generated-id' and value or name == 'last-entry' and value and value[1]
        if id then newest = math.max(newest, whole(string.match(id, '^%d+'))) end
    end
    return newest + 1
end

-- Whether Redis has refused an event because its log has, or has had, the same or a higher id.
local function has_higher(reply) return string.find(reply.err, 'smaller', 1, true) or string.find(reply.err, 'exhausted', 1, true) end

-- Makes an id possible in a log whose ids another program has raised. Events with lower ids stay.
local function remove_higher(log, id)
    local lower = redis.call('XRANGE', log, '-', '(' .. id)
    redis.call('DEL', log)
    for _, entry in ipairs(lower) do
        if entry[2][1] == 'e' then redis.call('XADD', log, entry[1], 'e', entry[2][2]) end
    end
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

-- The stored response of a job: its key, owner and whether it runs in the background; nil without one.
local function stored_response(record)
    local job = string.match(record, '^{[^}]*}:job:(.*)$')
    local key = job and response_of(record, job)
    local fields = key and redis.pcall('HMGET', key, 'owner', 'background')
    return fields and fields[1] and {key = key, job = job, owner = fields[1], is_background = fields[2] == '1'} or nil
end

-- Keeps an ended job as long as its stored response, and counts the log in the owner's bytes. Returns the retention in seconds.
local function retention_of(response, log, retention)
    if not response then return retention end
    local expiry = math.max(redis.call('TTL', response.key), tonumber(retention))
    local ledger = string.match(log, '^{[^}]*}:') .. 'response-bytes:' .. response.owner
    local size = redis.pcall('MEMORY', 'USAGE', log)
    if own(ledger, 'hash') and type(size) == 'number' then
        add_to_ledger(ledger, response.job, size, string.format('%.0f', ledger_bytes(ledger, response.job) + size), total_of(ledger))
        if redis.call('TTL', ledger) < expiry then redis.call('EXPIRE', ledger, expiry) end
    end
    return expiry
end

-- Logs of up to so many events are stored again at the end of the job: Redis allocates 4 KiB for the last node of a stream, whatever it contains, and a copy what it needs.
local SHRUNK_EVENTS = 100

-- Stores a short log in memory of its size. Entries and ids stay as they are. Never prevents the end of the job.
-- id: of the last event.
local function shrink(log, id)
    -- A first attempt numbers its events from 0.
    local sequence = string.match(id, '^1%-(%d+)$')
    local length = sequence and tonumber(sequence) + 1 or redis.pcall('XLEN', log)
    if type(length) ~= 'number' or length > SHRUNK_EVENTS then return end
    local copy = string.match(log, '^{[^}]*}:') .. 'copy'
    if redis.pcall('COPY', log, copy, 'REPLACE') ~= 1 then return end
    local renamed = redis.pcall('RENAME', copy, log)
    if renamed.err then redis.pcall('DEL', copy) end
end

-- Webhooks of responses that ran in the background. `webhooks` holds job ids by the time of their next delivery, `webhook:<job id>` what is delivered.
-- Time that a webhook is kept, s: longer than its delivery is tried.
local WEBHOOK_KEPT = 90000
-- Maximum number of webhooks of a partition; further ones are not delivered, and are counted in `webhooks-dropped` until a worker reads the count.
local WEBHOOKS_MAXIMUM = 100000

local function webhook_of(key, job) return string.match(key, '^{[^}]*}:') .. 'webhook:' .. job end

-- Queues the webhook of a job that ended, if its stored response ran in the background. Never prevents the end of the job.
local function queue_webhook(response, event, state)
    if not response or not response.is_background then return end
    local job = response.job
    local kind = ({interrupted = 'cancelled', failed = 'failed'})[state] or 'completed'
    local reason = string.match(event, '"reason":"([%w_]+)"')
    if state == 'finished' and (reason == 'length' or reason == 'content_filter') then kind = 'incomplete' end
    local webhooks = string.match(response.key, '^{[^}]*}:') .. 'webhooks'
    local size = own(webhooks, 'zset') and redis.pcall('ZCARD', webhooks) or 0
    if type(size) == 'number' and size >= WEBHOOKS_MAXIMUM then
        redis.pcall('INCR', webhooks .. '-dropped')
        redis.pcall('EXPIRE', webhooks .. '-dropped', WEBHOOK_KEPT)
        return
    end
    local now = now_ms()
    redis.pcall('HSET', webhook_of(response.key, job), 'type', 'response.' .. kind, 'owner', response.owner, 'created', string.format('%.0f', math.floor(now / 1000)), 'attempts', '0')
    redis.pcall('EXPIRE', webhook_of(response.key, job), WEBHOOK_KEPT)
    redis.pcall('ZADD', webhooks, now, job)
    redis.pcall('EXPIRE', webhooks, WEBHOOK_KEPT)
end

-- Writes the terminal event and the record, counts its usage, sets the expiry of the job's keys and publishes the event. Empty fields of `optional` are skipped.
-- owner, model: of the record; false without. has_audio: whether the user's message may have been spoken.
local function conclude(record, log, out, interrupt_key, id, event, state, usage, retention, optional, owner, model, has_audio)
    -- Only needed while the job runs. It comes first: it is allowed at the memory limit, and after a script's first write Redis does not check the limit again.
    redis.call('HDEL', record, 'token', 'entry', 'usage_to', 'unlisted_ms', unpack(USAGE_DETAILS))
    local added = redis.pcall('XADD', log, id, 'e', event)
    if type(added) == 'table' then
        if has_higher(added) then remove_higher(log, id) else own(log, 'stream') end
        redis.call('XADD', log, id, 'e', event)
    end
    shrink(log, id)
    local fields = {'state', state, 'finished_ms', now_ms()}
    add_usage(fields, usage)
    local billing = state == 'interrupted' and string.match(event, '"billing":"(%a+)"')
    if billing then
        fields[#fields + 1] = 'billing'
        fields[#fields + 1] = billing
    end
    add_present(fields, optional)
    redis.call('HSET', record, unpack(fields))
    count_usage(record, owner, model, state, usage, tonumber(string.match(event, '"saved_tokens":(%d+)') or '') or 0)
    local response = stored_response(record)
    queue_webhook(response, event, state)
    local kept = retention_of(response, log, retention)
    redis.call('EXPIRE', record, kept)
    redis.call('EXPIRE', log, kept)
    redis.call('EXPIRE', interrupt_key, retention)
    if has_audio then redis.call('DEL', (string.gsub(log, '^({[^}]*}:)log:', '%1audio:', 1))) end
    redis.call('PUBLISH', out, '[' .. event .. ']')
end

-- Ends a job that no worker runs. The id of its event is <next attempt>-0.
local function conclude_unrun(record, log, out, interrupt_key, state, fields, code, reason, retention)
    local known = redis.call('HMGET', record, 'attempt', 'usage', 'state', 'usage_to', 'owner', 'model', unpack(USAGE_DETAILS))
    local id = next_attempt(log, known[1]) .. '-0'
    -- A running job has lost its worker.
    local usage = known[3] == 'running' and usage_after_loss(known[2], known[4], log) or whole_usage(known[2], known[7], known[8]) or NO_USAGE
    local shown = usage
    if state == 'interrupted' then
        local billing = ',"billing":"' .. (string.find(usage, '"estimated":true', 1, true) and 'estimated' or 'exact') .. '"'
        shown = string.gsub(usage, '}$', billing .. '}', 1) .. billing
    end
    local event = '{"id":"' .. id .. '","type":"' .. state .. '",' .. fields .. ',"usage":' .. shown .. '}'
    conclude(record, log, out, interrupt_key, id, event, state, usage, retention, {code = code, reason = reason}, known[5], known[6], true)
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

-- Writes a job's interrupt key, and signals its worker if it is running. Returns the state before the interrupt ('unknown' without a record), or the error with which Redis
-- rejected the key; and whether the job waits for a worker, so that `end_waiting` must end it: it is queued, or its lease has expired.
-- queues: the queues of the partition by class. owner: '' for any.
local function store_interrupt(record, interrupt_key, cancel, queues, value, owner)
    local found = redis.call('HMGET', record, 'state', 'owner', 'entry')
    local state = found[1]
    if not state or (owner ~= '' and found[2] ~= owner) then return 'unknown' end
    if is_terminal(state) then return state end
    local stored = redis.pcall('SET', interrupt_key, value, 'EX', 86400, 'NX')
    -- A worker whose lease has expired may still run the job. When Redis is out of memory the worker is signalled anyway, and the caller receives the error because nothing
    -- was stored.
    if state == 'running' then redis.call('PUBLISH', cancel, value) end
    if type(stored) == 'table' and stored.err then return stored end
    local class, entry = string.match(found[3] or '', '^(%S+) (%S+)$')
    local queue = class and queues[class]
    return state, state == 'queued' or queue and is_lease_expired(queue, entry)
end

-- Ends an interrupted job that waits for a worker.
-- value: used instead of the value of the interrupt key if that has the wrong type.
local function end_waiting(record, log, out, interrupt_key, queues, value, group, retention)
    local found = redis.call('HMGET', record, 'owner', 'entry')
    local stored = redis.pcall('GET', interrupt_key)
    conclude_interrupted(record, log, out, interrupt_key, reason_of(type(stored) == 'string' and stored or value), retention)
    waits_no_more(record, found[1], queues.standard)
    local class, entry = string.match(found[2] or '', '^(%S+) (%S+)$')
    local queue = class and queues[class]
    if queue then
        unsort(queue, found[1], entry)
        drop(queue, group, entry)
    end
end
