-- Ends a running job: writes its terminal event and record, and deletes its queue entry. Repeated calls have no effect.
-- KEYS  1 record  2 log  3 output channel  4 interrupt key  5 queue  6 dead letters
-- ARGV  1 attempt  2 event id  3 event JSON  4 id of the event before it ('': any)  5 entry id  6 retention s  7 state  8 code  9 reason  10 usage JSON  11 upstream
--       12 first token ms  13 group  14 dead letters kept  15 job JSON for the dead letters ('' none)  16 message  17 dialled ms  18 bytes of dead letters kept
--       19 '1': the user's message may have been spoken
-- Returns 1 (ended), 0 (had already ended, or a newer attempt owns the job) or -1 (an earlier event is missing in the log; write it, then call again).
local function read() return redis.call('HMGET', KEYS[1], 'state', 'attempt', 'crashes', 'dialled_ms', 'first_token_ms', 'owner', 'model') end
local found = read()
-- The record was deleted. A newer attempt would have written it again.
local unrecorded = not found[1] and listed_job(KEYS[5], ARGV[5])
if not unrecorded and (found[1] ~= 'running' or found[2] ~= ARGV[1]) then return 0 end
local last = ARGV[4] ~= '' and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if ARGV[4] ~= '' and (last and last[1]) ~= ARGV[4] then return -1 end
if unrecorded then
    restore_record(KEYS[1], KEYS[5], ARGV[5], ARGV[1], unrecorded)
    found = read()
end
-- The record keeps the times of the first attempt that reached them.
local optional = {code = ARGV[8], reason = ARGV[9], upstream = ARGV[11], dialled_ms = found[4] and '' or ARGV[17], first_token_ms = found[5] and '' or ARGV[12]}
conclude(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[7], ARGV[10], ARGV[6], optional, found[6], found[7], ARGV[19] == '1')
if ARGV[15] ~= '' then
    bury(KEYS[6], ARGV[14], ARGV[18], ARGV[15], ARGV[8], ARGV[16], found[3] or 0)
end
drop(KEYS[5], ARGV[13], ARGV[5])
return 1
