-- Claims a delivered job for a worker and writes the `started` event of the new attempt. From then on Redis rejects output of older attempts.
-- KEYS  1 record  2 log  3 output channel  4 interrupt key  5 queue  6 dead letters
-- ARGV  1 worker  2 token of the worker's process  3 entry id  4 class  5 '1': the entry's lease expired  6 owner  7 session  8 model  9 deadline ms (0: none)
--       10 maximum of crashes  11 on_crash  12 retention s  13 group  14 dead letters kept  15 job JSON (only with 5)  16 retry_of  17 worker as a JSON string
--       18 bytes of dead letters kept  19 newest attempt that this process knows of (0: none)  20 lease ms
-- Returns {'claimed', attempt, crashes, now ms, usage of earlier attempts or '', settings of the owner, see tenant_of}, {'ended'} (the job had already ended), {'ended', 'interrupted' or a failure code}
-- (this call ended the job), {'duplicate'} (another entry holds the job), {'unlisted'} (this server has neither the record nor the entry) or {'busy'} (another worker holds the
-- lease, or this process runs the job or has ended it: its next renewal decides). Except for 'claimed', 'unlisted' and 'busy' the entry is deleted.
local record, log, out, interrupt_key, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local entry = ARGV[4] .. ' ' .. ARGV[3]
local FIELDS = {'state', 'attempt', 'token', 'entry', 'crashes', 'usage', 'worker', 'claimed_ms', unpack(USAGE_DETAILS)}
local found, interrupt_value = redis.pcall('HMGET', record, unpack(FIELDS)), redis.pcall('GET', interrupt_key)
-- A job with a key of the wrong type cannot run and would be claimed repeatedly, so it fails.
local intact = true
if found.err or type(interrupt_value) == 'table' then
    intact = own(record, 'hash')
    intact = own(interrupt_key, 'string') and intact
    found, interrupt_value = redis.call('HMGET', record, unpack(FIELDS)), redis.call('GET', interrupt_key)
end
local state = found[1]
local usage = whole_usage(found[6] or '', found[9], found[10])
if state and found[4] and found[4] ~= entry then
    drop(queue, ARGV[13], ARGV[3])
    return {'duplicate'}
end
if is_terminal(state) then
    drop(queue, ARGV[13], ARGV[3])
    return {'ended'}
end
if not state then
    -- The entry was delivered by another server, which was the primary before. This server has neither the entry nor the record, so the job is lost. Its clients are told so.
    local pending = redis.pcall('XPENDING', queue, ARGV[13], ARGV[3], ARGV[3], 1)
    if not pending.err and #pending == 0 then return {'unlisted'} end
end
local known = whole(ARGV[19])
local is_own = state == 'running' and found[3] == ARGV[2] and found[7] == ARGV[1]
if is_own and known > 0 and known >= whole(found[2]) then return {'busy'} end
if is_own and intact and not interrupt_value then
    -- The reply to an earlier call of the same claim was lost, if nothing was written since. Otherwise Redis has come back with older data, and the attempt must not be
    -- given out twice.
    local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
    if last[1] and last[1][1] == found[2] .. '-0' then
        set_lease(queue, ARGV[3], digits(now_ms() + ARGV[20]))
        return {'claimed', whole(found[2]), whole(found[5]), now_ms(), usage, tenant_of(queue, ARGV[6])}
    end
end
if state == 'running' and not is_own and ARGV[5] ~= '1' then return {'busy'} end
-- Fields of the record, collected and written by one HSET.
local fields = {}
if not state then
    -- A log may be left of an ended job with the same id. If its job has not ended, its record was deleted: the next attempt continues it.
    local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
    if last.err and intact or last[1] and is_end(last[1]) then redis.call('DEL', log) end
    fields = {'attempt', 0, 'crashes', 0, 'class', ARGV[4], 'entry', entry, 'submitted_ms', string.match(ARGV[3], '^%d+')}
    add_present(fields, {owner = ARGV[6], session = ARGV[7], model = ARGV[8], retry_of = ARGV[16]})
end
local function set_field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end
local function write_record()
    if #fields > 0 then redis.call('HSET', record, unpack(fields)) end
end
local function fail_spoilt()
    write_record()
    conclude_failed(record, log, out, interrupt_key, 'internal', 'a Redis key of the job has the wrong type; another program may have overwritten it', true, ARGV[12])
    waits_no_more(record, ARGV[6], queue)
    drop(queue, ARGV[13], ARGV[3])
    return {'ended', 'internal'}
end
if not intact then return fail_spoilt() end
if interrupt_value then
    write_record()
    conclude_interrupted(record, log, out, interrupt_key, reason_of(interrupt_value), ARGV[12])
    waits_no_more(record, ARGV[6], queue)
    drop(queue, ARGV[13], ARGV[3])
    return {'ended', 'interrupted'}
end
local now = now_ms()
if tonumber(ARGV[9]) > 0 and tonumber(now) > tonumber(ARGV[9]) then
    write_record()
    conclude_failed(record, log, out, interrupt_key, 'deadline_exceeded', 'the deadline passed while the job waited in the queue', false, ARGV[12])
    waits_no_more(record, ARGV[6], queue)
    drop(queue, ARGV[13], ARGV[3])
    return {'ended', 'deadline_exceeded'}
end
local tenant = tenant_of(queue, ARGV[6])
local daily = tonumber(string.match(tenant, '(%d+)$') or '') or 0
if daily > 0 and whole(found[2]) == 0 and tokens_today(record, ARGV[6]) >= daily then
    write_record()
    conclude_failed(record, log, out, interrupt_key, 'quota_exhausted', 'the tokens of the tenant for this day are used up', false, ARGV[12])
    waits_no_more(record, ARGV[6], queue)
    drop(queue, ARGV[13], ARGV[3])
    return {'ended', 'quota_exhausted'}
end
local crashes = whole(found[5])
if state == 'running' and not is_own then
    crashes = crashes + 1
    set_field('crashes', crashes)
    if ARGV[11] == 'fail' or crashes >= tonumber(ARGV[10]) then
        local message = 'worker ' .. (found[7] or '?') .. ' was lost while it ran the job (' .. crashes .. ' workers lost in total)'
        write_record()
        conclude_failed(record, log, out, interrupt_key, 'worker_lost', message, true, ARGV[12])
        bury(KEYS[6], ARGV[14], ARGV[18], ARGV[15], 'worker_lost', message, crashes)
        drop(queue, ARGV[13], ARGV[3])
        return {'ended', 'worker_lost'}
    end
end
local attempt, event
-- Begins an attempt in the log. Returns the error of Redis, if any.
local function begin(number)
    attempt = number
    event = '{"id":"' .. attempt .. '-0","type":"started","worker":' .. ARGV[17] .. ',"attempt":' .. attempt .. '}'
    local added = redis.pcall('XADD', log, attempt .. '-0', 'e', event)
    return type(added) == 'table' and added or nil
end
local problem = begin(math.max(whole(found[2]), known) + 1)
if problem and not own(log, 'stream') then return fail_spoilt() end
if problem and has_higher(problem) then
    -- The log is newer than the record, or has ids that no worker writes.
    problem = begin(next_attempt(log, attempt - 1))
    if problem then
        remove_higher(log, attempt .. '-0')
        problem = begin(attempt)
    end
end
if problem then return problem end
set_field('attempt', attempt)
set_field('state', 'running')
set_field('worker', ARGV[1])
set_field('token', ARGV[2])
if not found[8] then set_field('claimed_ms', now) end
write_record()
set_lease(queue, ARGV[3], digits(now + ARGV[20]))
waits_no_more(record, ARGV[6], queue)
redis.call('PUBLISH', out, '[' .. event .. ']')
return {'claimed', attempt, crashes, now, usage, tenant}
