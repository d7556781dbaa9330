-- Removes an entry that cannot run: an invalid job, or a job in a partition other than that of its id.
-- KEYS  1 queue  2 dead letters  3 record  4 log  5 output channel  6 interrupt key (3-6 only when the id is known and belongs to this partition)
-- ARGV  1 group  2 entry id  3 message  4 retention s  5 class  6 dead letters kept  7 the entry's text for the dead letters ('' none)
--       8 bytes of dead letters kept
-- Returns 1 (this call ended the job as failed) or 0 (there is no job to fail, or its record belongs to another entry).
local failed = 0
if #KEYS > 2 then own(KEYS[3], 'hash') end
if #KEYS > 2 and redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[4])
    redis.call('HSET', KEYS[3], 'attempt', 0, 'crashes', 0, 'class', ARGV[5], 'submitted_ms', string.match(ARGV[2], '^%d+'))
    conclude_failed(KEYS[3], KEYS[4], KEYS[5], KEYS[6], 'invalid_request', ARGV[3], false, ARGV[4])
    failed = 1
elseif #KEYS > 2 then
    -- Submitted by a gateway of a newer version. The record belongs to this entry, and no other code would end the job.
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
