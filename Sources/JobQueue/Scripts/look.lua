-- Compares jobs of one partition with what their readers have. Read-only; a few commands for any number of jobs while nothing has changed.
-- KEYS  1-3 queues (interactive, standard, batch), then the logs of n jobs, then their records
-- ARGV  per job, n times: the id of the last event that every reader has ('0-0': none), and the record's field `entry` ('': unknown)
-- Returns {news, gone, unlisted, entries}: {job, id of the first event that a reader lacks, …}, the jobs without record and log, the jobs whose queue entry was deleted with
-- its queue or by trimming, and {job, entry, …} for unknown entries. A job is its number from 1.
local n = (#KEYS - 3) / 2
local function log(job) return KEYS[3 + job] end
local function record(job) return KEYS[3 + n + job] end

local numbers, arguments = {}, {'COUNT', 1, 'STREAMS'}
for job = 1, n do
    numbers[log(job)] = job
    arguments[3 + job] = log(job)
    arguments[3 + n + job] = ARGV[2 * job - 1]
end
local news = {}
local function add_news(reply)
    for _, stream in ipairs(reply or {}) do
        news[#news + 1] = numbers[stream[1]]
        news[#news + 1] = stream[2][1][1]
    end
end
local reply = redis.pcall('XREAD', unpack(arguments))
if reply and reply.err then
    -- A log of the wrong type spoils the command for all.
    for job = 1, n do
        local single = redis.pcall('XREAD', 'COUNT', 1, 'STREAMS', log(job), ARGV[2 * job - 1])
        if not (single and single.err) then add_news(single) end
    end
else
    add_news(reply)
end

local records = {}
for job = 1, n do records[job] = record(job) end
local gone = {}
if redis.call('EXISTS', unpack(records)) < n then
    for job = 1, n do
        if redis.call('EXISTS', record(job), log(job)) == 0 then gone[#gone + 1] = job end
    end
end

-- Entries are deleted one by one when their jobs end, so an entry before the first one of its queue is gone.
local first = {}
for index, class in ipairs({'interactive', 'standard', 'batch'}) do
    local found = redis.pcall('XRANGE', KEYS[index], '-', '+', 'COUNT', 1)
    first[class] = not found.err and found[1] and found[1][1] or 'none'
end
local function precedes(entry, other)
    local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
    local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
    if not ms or not other_ms then return false end
    ms, other_ms = tonumber(ms), tonumber(other_ms)
    return ms < other_ms or ms == other_ms and tonumber(seq) < tonumber(other_seq)
end
local unlisted, entries = {}, {}
for job = 1, n do
    local entry = ARGV[2 * job]
    if entry == '' then
        entry = redis.pcall('HGET', record(job), 'entry')
        if type(entry) == 'string' then
            entries[#entries + 1] = job
            entries[#entries + 1] = entry
        end
    end
    local class, id = string.match(type(entry) == 'string' and entry or '', '^(%S+) (%S+)$')
    local start = class and first[class]
    if start and (start == 'none' or precedes(id, start)) then unlisted[#unlisted + 1] = job end
end
return {news, gone, unlisted, entries}
