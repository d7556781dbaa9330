-- Functions shared by the scripts. ScriptLibrary adds to each script those that it uses. They use only the keys passed to them and keys with the same hash tag.

-- A whole number as decimal digits; tostring gives an exponent for large ones. `%d` is much faster than `%.0f`.
local function digits(number) return string.format('%d', number) end

-- The server's time in ms, as text. Redis does not advance it while a script runs.
local script_time
local function now_ms()
    if not script_time then
        local time = redis.call('TIME')
        script_time = digits(time[1] * 1000 + math.floor(time[2] / 1000))
    end
    return script_time
end

local function is_terminal(state)
    return state == 'finished' or state == 'interrupted' or state == 'failed'
end

local NO_USAGE = '{"prompt_tokens":0,"completion_tokens":0,"estimated":false}'

-- The hash tag and the class of a queue, by its key: matching a pattern takes longer than most commands.
local tags, classes = {}, {}
local function class_of(queue)
    if not classes[queue] then tags[queue], classes[queue] = string.match(queue, '^(.*)queue:(%w+)$') end
    return classes[queue]
end

-- The key `name` with the same hash tag as a queue.
local function beside(queue, name)
    class_of(queue)
    return (tags[queue] or queue) .. name
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

-- The number in a field of unknown origin, rounded down; 0 for anything outside 0 to 2147483646, so that the next number is valid too.
local function whole(text)
    local number = tonumber(text or '0')
    if not number or number ~= number or number < 0 or number > 2147483646 then return 0 end
    return math.floor(number)
end

-- Byte ledgers count the bytes of submitted jobs in the queues. Each is a hash with the field `total` and one field per entry.
-- `queued_bytes:<class>` counts one class; its fields are '<entry>' with the value '<bytes> <owner>'. `queued_bytes_of:<owner>` counts one owner in all classes; its
-- fields are '<class> <entry>' with the value '<bytes>'. An entry is removed from both when it is deleted from its stream. Entries added by hand are in neither.
local LEDGER_EXPIRY = 86400

local function class_ledger(queue) return beside(queue, 'queued_bytes:' .. class_of(queue)) end

local function owner_ledger(queue, owner) return beside(queue, 'queued_bytes_of:' .. owner) end

-- The total of a ledger. One of the wrong type is deleted.
local function total_of(ledger)
    local total = redis.pcall('HGET', ledger, 'total')
    if type(total) == 'table' then
        own(ledger, 'hash')
        return 0
    end
    return tonumber(total or '0') or 0
end

-- total: the total of the ledger before. keeps_expiry: the ledger has an expiry that is far enough away.
local function add_to_ledger(ledger, field, bytes, value, total, keeps_expiry)
    redis.call('HSET', ledger, field, value, 'total', digits(total + bytes))
    if not keeps_expiry or total <= 0 then redis.call('EXPIRE', ledger, LEDGER_EXPIRY) end
end

-- A ledger of the wrong type is left to the next submission.
local function remove_from_ledger(ledger, field, bytes)
    if redis.pcall('HDEL', ledger, field) ~= 1 then return end
    local total = redis.pcall('HINCRBY', ledger, 'total', digits(-bytes))
    if type(total) == 'number' and total > 0 then return end
    -- The ledger is empty, or another program has changed its total.
    if redis.call('HLEN', ledger) <= 1 then redis.call('DEL', ledger) else redis.call('HSET', ledger, 'total', 0) end
end

-- Removes an entry from the ledgers of its class and its owner.
local function release_bytes(queue, entry)
    local ledger = class_ledger(queue)
    local value = redis.pcall('HGET', ledger, entry)
    if type(value) ~= 'string' then return end
    local bytes, owner = string.match(value, '^(%d+) (.*)$')
    bytes = tonumber(bytes) or 0
    remove_from_ledger(ledger, entry, bytes)
    if owner and owner ~= '' then
        remove_from_ledger(owner_ledger(queue, owner), class_of(queue) .. ' ' .. entry, bytes)
    end
end

-- The lease index of a queue: a sorted set of the entries delivered to workers by the time at which their leases expire, in ms. 0: the entry was returned to the queue.
-- Entries can share a lease, see renew_quiet.lua. Their score is the number of the shared lease, and the score of the member '=<number>' is the time at which it expires.
local function leases_of(queue) return beside(queue, 'leases:' .. class_of(queue)) end

-- The numbers of shared leases are above all times.
local FIRST_SHARED = 1e13

local function shared_lease(number) return '=' .. digits(number) end

-- Sets the time at which the leases of entries expire. An index of the wrong type is replaced.
local function set_leases(queue, entries, expiry)
    local index, scores = leases_of(queue), {}
    for _, entry in ipairs(entries) do
        scores[#scores + 1] = expiry
        scores[#scores + 1] = entry
    end
    local reply = redis.pcall('ZADD', index, unpack(scores))
    if type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) then
        redis.call('DEL', index)
        redis.call('ZADD', index, unpack(scores))
    end
end

local function set_lease(queue, entry, expiry)
    if type(redis.pcall('ZADD', leases_of(queue), expiry, entry)) == 'table' then set_leases(queue, {entry}, expiry) end
end

-- The time in ms at which the lease of an entry expires; nil if the index has none.
local function lease_expiry(queue, entry)
    local index = leases_of(queue)
    local score = redis.pcall('ZSCORE', index, entry)
    local expiry = type(score) == 'string' and tonumber(score) or nil
    if not expiry or expiry < FIRST_SHARED then return expiry end
    score = redis.call('ZSCORE', index, shared_lease(expiry))
    return score and tonumber(score)
end

-- Whether the lease of an entry has expired, by the index.
local function is_lease_expired(queue, entry)
    local expiry = lease_expiry(queue, entry)
    return expiry and expiry <= tonumber(now_ms())
end

-- Replaces a shared lease that has expired by a lease for each of its entries, which has expired as well. Returns the number of entries.
local function separate(index, shared)
    local number, expiry = string.sub(shared, 2), redis.call('ZSCORE', index, shared)
    local entries, scores = redis.pcall('ZRANGEBYSCORE', index, number, number), {}
    redis.call('ZREM', index, shared)
    for _, entry in ipairs(entries) do
        scores[#scores + 1] = expiry
        scores[#scores + 1] = entry
    end
    if #scores > 0 then redis.call('ZADD', index, unpack(scores)) end
    return #entries
end

-- Entries whose leases have expired, in the order of their expiry, or an error.
-- first, maximum: how many of them are skipped, and how many are returned at most.
local function expired_entries(index, now, first, maximum)
    -- Entries that this call may separate from shared leases, so that it does not block Redis for long.
    local separable = 500
    while true do
        local found = redis.pcall('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', first, maximum)
        if found.err then return found end
        local entries, is_complete = {}, true
        for _, member in ipairs(found) do
            if string.sub(member, 1, 1) ~= '=' then
                entries[#entries + 1] = member
            elseif separable > 0 then
                separable, is_complete = separable - separate(index, member), false
            end
        end
        if is_complete then return entries end
    end
end

-- The settings of an owner, from the hash `tenants`: '<weight> <concurrency> <requests per minute> <tokens per minute> <tokens per day>', 0 for no limit; '' without an
-- entry of its own and without the entry 'default'.
local function tenant_of(queue, owner)
    local found = redis.pcall('HMGET', beside(queue, 'tenants'), owner, 'default')
    return not found.err and (found[1] or found[2]) or ''
end

-- Waiting jobs, by tenant. See turns.lua.
-- The consumer that owns waiting entries which are sorted by tenant. Belongs to no worker.
local WAITING_CONSUMER = '-waiting-'
-- Idle time in ms of entries that belong to no worker, so that workers of earlier versions take them over at once.
local UNOWNED_IDLE = 86400000

-- The sorted set of an owner's waiting entries in a queue, in the order of their ids.
local function waiting_of(queue, owner) return beside(queue, 'turn:' .. class_of(queue) .. ':' .. owner) end

-- The sorted set of the owners with sorted waiting entries in a queue, by the tokens that each was given per weight.
local function turns_of(queue) return beside(queue, 'turns:' .. class_of(queue)) end

-- Removes an owner without waiting entries from the turns of a queue. Without waiting entries of any owner all turns begin anew.
-- given: its tokens per weight, or nil if unchanged.
local function end_turns(queue, owner, given)
    local turns = turns_of(queue)
    local class = class_of(queue)
    local past, begun = beside(queue, 'turns-past:' .. class), beside(queue, 'turns-begun:' .. class)
    given = given or redis.call('ZSCORE', turns, owner)
    redis.call('ZREM', turns, owner)
    if redis.call('EXISTS', turns) == 0 then
        redis.call('DEL', past, begun)
    elseif given then
        -- An owner who returns continues where it was. What lies before the current turn is of no use.
        redis.call('ZADD', past, given, owner)
        redis.call('ZREMRANGEBYSCORE', past, '-inf', '(' .. (redis.call('GET', begun) or '0'))
    end
end

-- Removes an entry that left its queue without being delivered.
local function unsort(queue, owner, entry)
    local waiting = waiting_of(queue, owner or '')
    local removed = redis.pcall('ZREM', waiting, entry)
    if removed == 1 and redis.call('EXISTS', waiting) == 0 then pcall(end_turns, queue, owner or '') end
end

-- The field `job` of an entry, or false.
local function job_of(entry)
    local fields = entry[2] or {}
    for i = 1, #fields, 2 do
        if fields[i] == 'job' then return fields[i + 1] end
    end
    return false
end

-- The decoded job of an entry; nil without the entry. Entries are deleted when their jobs end.
local function listed_job(queue, entry)
    local listed = redis.pcall('XRANGE', queue, entry, entry)
    local readable, job = pcall(cjson.decode, not listed.err and listed[1] and job_of(listed[1]) or '')
    return readable and type(job) == 'table' and job or nil
end

-- Writes a record again that was deleted while its job ran, all but the state. job: the decoded job of the queue entry.
local function restore_record(record, queue, entry, attempt, job)
    -- The first write: one that Redis accepts at the memory limit.
    redis.call('HDEL', record, 'token')
    local class = class_of(queue)
    local fields = {'attempt', attempt, 'crashes', 0, 'class', class, 'entry', class .. ' ' .. entry, 'submitted_ms', string.match(entry, '^%d+')}
    local model = type(job.request) == 'table' and job.request.model
    for name, value in pairs({owner = job.owner, session = job.session, retry_of = job.retry_of, model = model}) do
        if type(value) == 'string' then add_present(fields, {[name] = value}) end
    end
    redis.call('HSET', record, unpack(fields))
end

-- Removes an entry from its queue, the lease index and the byte ledgers. XACK alone would leave it in the stream. A queue of the wrong type has no entries.
local function drop(queue, group, entry)
    redis.pcall('XACK', queue, group, entry)
    redis.pcall('XDEL', queue, entry)
    redis.pcall('ZREM', leases_of(queue), entry)
    release_bytes(queue, entry)
end

-- Returns an entry to its queue, to be served before waiting entries. Announces it if no other returned entry waits: workers with free slots take all of them.
local function return_entry(queue, entry, channel)
    set_lease(queue, entry, 0)
    if redis.call('ZCOUNT', leases_of(queue), 0, 0) == 1 then redis.call('PUBLISH', channel, entry) end
end

-- Whether the reply of a `redis.pcall` says that this server executes no writes, so that the caller must repeat the script on another one or later.
local function is_unexecuted(reply)
    return type(reply) == 'table' and reply.err and (string.find(reply.err, 'READONLY', 1, true) or string.find(reply.err, 'NOREPLICAS', 1, true)) and true
end

-- Makes a consumer the owner of entries, also when their group or their places in the pending list were deleted. Returns the reply of XCLAIM, the ids of the entries that exist,
-- or an error.
local function own_entries(queue, group, consumer, entries, ...)
    local arguments = {queue, group, consumer, 0, unpack(entries)}
    for _, option in ipairs({'FORCE', 'JUSTID', ...}) do arguments[#arguments + 1] = option end
    local reply = redis.pcall('XCLAIM', unpack(arguments))
    if type(reply) == 'table' and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
        redis.pcall('XGROUP', 'CREATE', queue, group, '0', 'MKSTREAM')
        reply = redis.pcall('XCLAIM', unpack(arguments))
    end
    return reply
end

local function own_entry(queue, group, consumer, entry, ...) return own_entries(queue, group, consumer, {entry}, ...) end
