-- Adds a job to its queue unless a limit is reached or the idempotency key was used; interrupts the jobs that it supersedes.
-- KEYS  1 record  2-4 queues (interactive, standard, batch)  5 cancel channel  6 idempotency key (the record again if there is none)
--       then for each superseded job: record, log, output channel, interrupt key
-- ARGV  1 job JSON  2 class  3 maximum of waiting jobs  4 gateway  5 owner  6 session  7 model  8 retry_of  9 digest of the body ('' without a key)
--       10 group  11 retention s  12 id  13 maximum of the owner's waiting jobs (0: none)
--       14 '1': the job ends with its gateway  15 epoch in which the gateway owns the session ('': no check)  16 field that an earlier
--       command has written to the session  17 maximum bytes of the class  18 maximum bytes of the owner (0: no limit)
--       19 tokens of the owner on this day in other partitions, then for each superseded job: value of the interrupt key
-- Returns {'accepted', the owner's tokens per day (0: no limit)}, {'quota'} (they are used up), {'full', waiting}, {'owner_full'}, {'repeated', id}, {'conflict'}, {'exists'} (the id has a record: an earlier call of the same submission
-- succeeded), {'session_lost'} (another gateway owns the session and may already have reported to the client that the job does not exist) or {'session_unsaved'} (the
-- session is missing or lacks the field).
-- Also uses keys with the same hash tag: the session, the set of the owner's waiting jobs and their records, the set of the gateway's requests, and the byte ledgers.
-- Number of an owner's waiting jobs, or of a ledger's entries, that are verified when a limit seems to be reached.
local SAMPLE = 20
-- Bytes of existing entries after which no further ones are verified: verifying an entry reads its whole job, and a job may have a megabyte.
local VERIFIED_BYTES = 65536
local DAY = 86400
local queues = {interactive = KEYS[2], standard = KEYS[3], batch = KEYS[4]}
local queue = queues[ARGV[2]]
local verified_bytes = 0
-- Whether an entry is in the queue of its class. Counts the bytes read.
local function is_queued(class, entry)
    local found = entry and queues[class] and redis.pcall('XRANGE', queues[class], entry, entry)
    if not found or found.err or #found == 0 then return false end
    for _, field in ipairs(found[1][2]) do verified_bytes = verified_bytes + #field end
    return true
end
if ARGV[9] ~= '' then
    local used = redis.call('GET', KEYS[6])
    if used then
        local id, digest = string.match(used, '^(%S+) (%S+)$')
        if digest ~= ARGV[9] then return {'conflict'} end
        -- A client that lost its connection, which interrupted its job, sends its request again: that is a new job.
        local prefix = string.match(KEYS[1], '^{[^}]*}:')
        local earlier = id and redis.pcall('HMGET', prefix .. 'job:' .. id, 'state', 'reason') or {}
        local interrupted = earlier[1] == 'running' and redis.pcall('GET', prefix .. 'interrupt:' .. id)
        local has_left = earlier[1] == 'interrupted' and earlier[2] == 'CLIENT_GONE'
            or type(interrupted) == 'string' and string.find(interrupted, '"CLIENT_GONE"', 1, true)
        if not has_left then return {'repeated', id} end
    end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
local daily = ARGV[5] ~= '' and tonumber(string.match(tenant_of(queue, ARGV[5]), '(%d+)$') or '') or 0
if daily > 0 and tokens_today(KEYS[1], ARGV[5]) + tonumber(ARGV[19]) >= daily then return {'quota'} end
if ARGV[15] ~= '' then
    local session = redis.call('HMGET', beside(queue, 'session:' .. ARGV[6]), 'gateway', 'epoch', ARGV[16])
    if session[2] and (session[1] ~= ARGV[4] or session[2] ~= ARGV[15]) then return {'session_lost'} end
    -- Also when Redis has lost the session: another gateway could not restore it together with the job.
    if not session[3] then return {'session_unsaved'} end
end
-- Ledgers and sets of the wrong type are deleted and built again.
local class_bytes = class_ledger(queue)
local owner_bytes = ARGV[5] ~= '' and owner_ledger(queue, ARGV[5])
local function size_of(set)
    local size = redis.pcall('SCARD', set)
    if type(size) == 'number' then return size end
    own(set, 'set')
    return 0
end
local waiting = redis.call('XLEN', queue)
if waiting >= tonumber(ARGV[3]) then
    -- Running jobs are in the stream too, as pending entries of workers; they do not count as waiting.
    local ok, pending = pcall(redis.call, 'XPENDING', queue, ARGV[10])
    for _, consumer in ipairs(ok and pending[4] or {}) do
        if consumer[1] ~= WAITING_CONSUMER then waiting = waiting - tonumber(consumer[2]) end
    end
    if waiting >= tonumber(ARGV[3]) then return {'full', waiting} end
end
local owners = ARGV[5] ~= '' and beside(queue, 'waiting:' .. ARGV[5])
local owner_maximum = tonumber(ARGV[13])
local owner_waiting = owners and size_of(owners)
if owners and owner_maximum > 0 and owner_waiting >= owner_maximum then
    -- The scripts remove a job from the set when it leaves the queue. Jobs whose entries were deleted otherwise (the queue was deleted) are
    -- removed here, so that the count recovers.
    for _, record in ipairs(redis.call('SRANDMEMBER', owners, SAMPLE)) do
        if verified_bytes >= VERIFIED_BYTES then break end
        local found = redis.call('HMGET', record, 'state', 'entry')
        local class, entry = string.match(found[2] or '', '^(%S+) (%S+)$')
        if found[1] ~= 'queued' or not is_queued(class, entry) then redis.call('SREM', owners, record) end
    end
    owner_waiting = size_of(owners)
    if owner_waiting >= owner_maximum then return {'owner_full'} end
end
-- Whether the job would exceed the ledger's maximum, and the ledger's total. Entries that were deleted without a script are removed from a sample of the ledger first. An empty
-- ledger accepts a job of any size.
local function would_exceed(ledger, maximum, owner)
    local total = total_of(ledger)
    if maximum <= 0 or total + #ARGV[1] <= maximum then return false, total end
    local sample = redis.call('HRANDFIELD', ledger, SAMPLE, 'WITHVALUES')
    for index = 1, #sample, 2 do
        local field, value = sample[index], sample[index + 1]
        local class, entry = ARGV[2], field
        if owner then class, entry = string.match(field, '^(%S+) (%S+)$') end
        if verified_bytes >= VERIFIED_BYTES then break end
        if field ~= 'total' and not is_queued(class, entry) then
            remove_from_ledger(ledger, field, tonumber(string.match(value, '^%d+')) or 0)
        end
    end
    if redis.call('HLEN', ledger) <= 1 then redis.call('DEL', ledger) end
    total = total_of(ledger)
    return total > 0 and total + #ARGV[1] > maximum, total
end
local is_full, class_total = would_exceed(class_bytes, tonumber(ARGV[17]), false)
if is_full then return {'full', waiting} end
local owner_total
if owner_bytes then is_full, owner_total = would_exceed(owner_bytes, tonumber(ARGV[18]), true) end
if is_full then return {'owner_full'} end
for i = 7, #KEYS, 4 do
    local value = ARGV[20 + (i - 7) / 4]
    local _, waits = store_interrupt(KEYS[i], KEYS[i + 3], KEYS[5], queues, value, ARGV[5])
    if waits then end_waiting(KEYS[i], KEYS[i + 1], KEYS[i + 2], KEYS[i + 3], queues, value, ARGV[10], ARGV[11]) end
end
if #KEYS > 6 then
    -- Superseded jobs that were waiting have left the ledgers and the set.
    class_total, owner_total, owner_waiting = total_of(class_bytes), owner_bytes and total_of(owner_bytes), owners and size_of(owners)
end
local entry = redis.call('XADD', queue, '*', 'job', ARGV[1])
-- Ledgers and the set of an owner are given their expiry when they were empty, and again with every sixteenth job or so.
local keeps_expiry = tonumber(string.match(entry, '(%d%d)-')) % 16 > 0
local fields = {'state', 'queued', 'attempt', 0, 'crashes', 0, 'class', ARGV[2], 'submitted_ms', now_ms(), 'entry', ARGV[2] .. ' ' .. entry}
add_to_ledger(class_bytes, entry, #ARGV[1], #ARGV[1] .. ' ' .. ARGV[5], class_total, keeps_expiry)
if owner_bytes then add_to_ledger(owner_bytes, ARGV[2] .. ' ' .. entry, #ARGV[1], #ARGV[1], owner_total, keeps_expiry) end
add_present(fields, {gateway = ARGV[4], owner = ARGV[5], session = ARGV[6], model = ARGV[7], retry_of = ARGV[8]})
redis.call('HSET', KEYS[1], unpack(fields))
if ARGV[9] ~= '' then redis.call('SET', KEYS[6], ARGV[12] .. ' ' .. ARGV[9], 'EX', DAY) end
if owners then
    redis.call('SADD', owners, KEYS[1])
    if owner_waiting == 0 or not keeps_expiry then redis.call('EXPIRE', owners, DAY) end
end
if ARGV[14] == '1' then
    local requests = beside(queue, 'requests:' .. ARGV[4])
    if type(redis.pcall('SADD', requests, ARGV[12])) == 'table' then
        own(requests, 'set')
        redis.call('SADD', requests, ARGV[12])
    end
    redis.call('EXPIRE', requests, DAY)
end
return {'accepted', daily}
