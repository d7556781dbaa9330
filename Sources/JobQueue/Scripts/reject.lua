-- Removes an entry that cannot be run: no job, or a job in a partition that is not its id's.
-- KEYS  1 queue  2 dead letters  3 record  4 log  5 out channel  6 durable key (3-6 only when the id is known and lies in this partition)
-- ARGV  1 group  2 entry id  3 message  4 retention s  5 class  6 dead letters kept  7 the entry's text for the dead letters ('' none)
--       8 bytes of dead letters kept
-- Returns 1 when the job has failed by this, 0 when there was none to fail (or its record is another entry's).
local failed = 0
if #KEYS > 2 then own(KEYS[3], 'hash') end
if #KEYS > 2 and redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[4])
    redis.call('HSET', KEYS[3], 'attempt', 0, 'crashes', 0, 'class', ARGV[5], 'submitted_ms', string.match(ARGV[2], '^%d+'))
    conclude_failed(KEYS[3], KEYS[4], KEYS[5], KEYS[6], 'invalid_request', ARGV[3], false, ARGV[4])
    failed = 1
elseif #KEYS > 2 then
    -- Submitted by a gateway that speaks of more than this worker knows: the record is this entry's own, and nobody else would ever end it.
    local found = redis.call('HMGET', KEYS[3], 'state', 'entry', 'owner')
    if found[1] == 'queued' and found[2] == ARGV[5] .. ' ' .. ARGV[2] then
        conclude_failed(KEYS[3], KEYS[4], KEYS[5], KEYS[6], 'invalid_request', ARGV[3], false, ARGV[4])
        waits_no_more(KEYS[3], found[3], KEYS[1])
        failed = 1
    end
end
if ARGV[7] ~= '' then
    bury(KEYS[2], ARGV[6], ARGV[8], ARGV[7], 'invalid_request', ARGV[3], 0)
end
drop(KEYS[1], ARGV[1], ARGV[2])
return failed
