-- Functions that estimate, store and count the usage of jobs, for the scripts of jobs. They use those of shared.lua.

-- Number of events that `usage_after_loss` reads: what a worker writes between two renewals.
local EVENTS_COUNTED = 2000

-- Bytes of text that `text_tokens` reads; a token counts four bytes of the rest.
local TEXT_COUNTED = 1048576

-- Estimates the tokens of a text by the rule of TokenEstimator.swift, which explains it. Costs are in sixteenths of a token.
local function text_tokens(text)
    local cost = 4 * math.max(0, #text - TEXT_COUNTED)
    text = string.sub(text, 1, TEXT_COUNTED)
    local function add_words(pattern, bytes, word, short, letter)
        for found in string.gmatch(text, pattern) do cost = cost + word + letter * math.max(0, #found / bytes - short) end
    end
    local function add_each(set, each)
        local _, count = string.gsub(text, set, '')
        cost = cost + each * count
    end
    add_words('[\204-\213][\128-\191\204-\213]*', 2, 23, 3, 2)
    add_words('[\214-\223][\128-\191\214-\223]*', 2, 23, 2, 2)
    add_words('\224[\128-\191\224]*', 3, 9, 2, 8)
    add_each('[\234-\237]', 13)
    add_each('[\226-\233\238\239]', 12)
    add_each('[\240-\255]', 32)
    -- A capital in the middle of a word begins another one.
    text = string.gsub(text, '([%l\128-\191])(%u)', '%1\r%2')
    text = string.gsub(text, '\194[\128-\191]', ';')
    text = string.gsub(text, '[%a\195-\203\225][%w\128-\191\195-\203\225]*', function(word)
        local _, letters = string.gsub(word, '[^\128-\191]', '')
        local _, accents = string.gsub(word, '[\195-\203]', '')
        local _, rare = string.gsub(word, '\225', '')
        cost = cost + 16 + 8 * math.max(0, letters - 7) + 16 * accents + 4 * rare
        return '\r'
    end)
    for digits in string.gmatch(text, '%d+') do cost = cost + 16 * math.ceil(#digits / 3) end
    for marks in string.gmatch(text, '%p+') do cost = cost + 8 + 3 * #marks end
    add_each('[ \t]%f[%d]', 16)
    add_each('%d%f[%p]', 5)
    add_each('[ \t][ \t]+', 16)
    return math.ceil(cost / 16)
end

-- The usage JSON of a job whose worker was lost: what it recorded at its last renewal, and the text in the log since then. Always an estimate, at least a token for each event.
-- counted: id of the newest event that is part of `recorded`; false if none was recorded.
local function usage_after_loss(recorded, counted, log)
    local readable, usage = pcall(cjson.decode, recorded or '')
    if not readable or type(usage) ~= 'table' then usage = {} end
    local texts = {}
    local events = redis.pcall('XRANGE', log, counted and '(' .. counted or '-', '+', 'COUNT', EVENTS_COUNTED)
    for _, entry in ipairs(events.err and {} or events) do
        local is_event, event = pcall(cjson.decode, entry[2][2] or '')
        local text = is_event and type(event) == 'table' and (event.type == 'text' or event.type == 'reasoning') and event.text
        if type(text) == 'string' then texts[#texts + 1] = text end
    end
    local tokens = whole(usage.completion_tokens) + math.max(#texts, text_tokens(table.concat(texts)))
    return string.format('{"prompt_tokens":%.0f,"completion_tokens":%.0f,"estimated":true}', whole(usage.prompt_tokens), tokens)
end

-- Usage in a record. Redis keeps a hash in its compact encoding while no value exceeds 64 bytes, so that the counts that only some upstreams report have their own fields,
-- as `billing` has.
local USAGE_DETAILS = {'cached', 'reasoning'}
local COMPACT_VALUE = 64

-- Adds the usage, JSON as workers send it, to the arguments of an HSET.
local function add_usage(fields, usage)
    if #usage > COMPACT_VALUE then
        for _, name in ipairs(USAGE_DETAILS) do
            local count = string.match(usage, '"' .. name .. '_tokens":(%d+)')
            if count then
                fields[#fields + 1] = name
                fields[#fields + 1] = count
                usage = string.gsub(usage, ',"' .. name .. '_tokens":%d+', '', 1)
            end
        end
        usage = string.gsub(usage, ',"billing":"%a+"', '', 1)
    end
    fields[#fields + 1] = 'usage'
    fields[#fields + 1] = usage
end

-- The usage of a record with its details; '' or nil as it is.
local function whole_usage(usage, cached, reasoning)
    if not usage or usage == '' then return usage end
    for index, count in ipairs({cached or '', reasoning or ''}) do
        local name = '"' .. USAGE_DETAILS[index] .. '_tokens":'
        if string.find(count, '^%d+$') and not string.find(usage, name, 1, true) then usage = string.gsub(usage, '}$', ',' .. name .. count .. '}', 1) end
    end
    return usage
end

-- Usage of tenants, by UTC day (days since 1970). `usage:<day>` is a hash with the tokens of each owner; `usage:<day>:<owner>` is a hash with seven numbers for each
-- model: jobs, interrupted jobs, prompt tokens and completion tokens reported by upstreams, prompt tokens and completion tokens estimated, tokens saved by interrupts.
local USAGE_EXPIRY = 36 * 86400
-- Models are named by clients: further ones of an owner's day are counted as ''.
local USAGE_MODELS = 200

-- The key of a day's usage, from another key with the same hash tag.
local function usage_key(key) return string.match(key, '^{[^}]*}:') .. 'usage:' .. math.floor(now_ms() / 86400000) end

-- Tokens of an owner on the current day, in this partition.
local function tokens_today(key, owner)
    local found = redis.pcall('HGET', usage_key(key), owner)
    return type(found) == 'string' and tonumber(found) or 0
end

-- Counts an ended job.
-- owner, model: of its record; false without. usage: JSON. saved: tokens that an interrupt saved.
local function count_usage(record, owner, model, state, usage, saved)
    owner, model = owner or '', model or ''
    local total = usage_key(record)
    local detail = total .. ':' .. owner
    local found = redis.pcall('HGET', detail, model)
    if not found and redis.call('HLEN', detail) >= USAGE_MODELS then
        model = ''
        found = redis.call('HGET', detail, model)
    end
    if type(found) == 'table' then return end
    local prompt = tonumber(string.match(usage, '"prompt_tokens":(%d+)') or '') or 0
    local completion = tonumber(string.match(usage, '"completion_tokens":(%d+)') or '') or 0
    local is_estimated = string.find(usage, '"estimated":true', 1, true)
    local jobs, interrupted, p, c, estimated_p, estimated_c, spared = string.match(found or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)')
    local counts = string.format('%d %d %d %d %d %d %d', (jobs or 0) + 1, (interrupted or 0) + (state == 'interrupted' and 1 or 0),
        (p or 0) + (is_estimated and 0 or prompt), (c or 0) + (is_estimated and 0 or completion), (estimated_p or 0) + (is_estimated and prompt or 0),
        (estimated_c or 0) + (is_estimated and completion or 0), (spared or 0) + saved)
    local sum = redis.pcall('HINCRBY', total, owner, digits(prompt + completion))
    if type(sum) ~= 'number' then
        -- Another program has written the key or its field.
        if own(total, 'hash') then redis.call('HDEL', total, owner) end
        return
    end
    redis.call('HSET', detail, model, counts)
    if sum == prompt + completion then
        -- Possibly the first of the day.
        redis.call('EXPIRE', total, USAGE_EXPIRY)
    end
    if not found then redis.call('EXPIRE', detail, USAGE_EXPIRY) end
end
