-- Writes a job's interrupt key. Ends the job if it waits for a worker; signals its worker if it is running.
-- KEYS  1 record  2 log  3 output channel  4 interrupt key  5 cancel channel  6-8 queues (interactive, standard, batch)
-- ARGV  1 value of the interrupt key  2 owner ('' any)  3 group  4 retention s  5 '1': also store and publish for a job without a record
-- Returns the state before the interrupt, or 'unknown'.
local queues = {interactive = KEYS[6], standard = KEYS[7], batch = KEYS[8]}
local state, waits = store_interrupt(KEYS[1], KEYS[4], KEYS[5], queues, ARGV[1], ARGV[2])
if waits then
    end_waiting(KEYS[1], KEYS[2], KEYS[3], KEYS[4], queues, ARGV[1], ARGV[3], ARGV[4])
elseif state == 'unknown' and ARGV[5] == '1' then
    redis.call('SET', KEYS[4], ARGV[1], 'EX', 86400)
    redis.call('PUBLISH', KEYS[5], ARGV[1])
end
return state
