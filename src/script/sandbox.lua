-- What scripts see of Lua. Run once for each interpreter, before any script.
--
-- A table is sealed by putting an empty one in its place, whose metatable reads through to the real
-- one and refuses to be written. LuaJIT has no read-only tables, so whatever looks past a metatable
-- (rawset, next, table.insert ...) is replaced here by a function that knows sealed tables.
--
--    script --> sealed globals (empty) --__index--> globals
--           --__index--> "nonexistent global variable"
--
-- Nothing in here may hand a real table to a script: what a script could change, the next user's
-- script would run.

local options = ...
local globals = _G
local error, type, select, tonumber, tostring = error, type, select, tonumber, tostring
local floor, ceil = math.floor, math.ceil
local rawget, rawset, next, pairs = rawget, rawset, next, pairs
local getmetatable, setmetatable = getmetatable, setmetatable
local ipairs = ipairs
local load, pcall, collectgarbage, getfenv, setfenv = load, pcall, collectgarbage, getfenv, setfenv
local insert, foreach, concat = table.insert, table.foreach, table.concat
local find, match, sub, gsub = string.find, string.match, string.sub, string.gsub
local unsigned = options.unsigned
local called_as, is_native, script_level = options.called_as, options.is_native, options.script_level

local allowed = {
    "_VERSION", "assert", "bit", "cjson", "cmsgpack", "collectgarbage", "coroutine", "error", "gcinfo",
    "getmetatable", "ipairs", "load", "loadstring", "math", "next", "os", "pairs", "pcall", "rawequal", "rawget",
    "rawset", "redis", "select", "server", "setmetatable", "string", "struct", "table", "tonumber", "tostring", "type",
    "unpack", "xpcall",
}
local libraries = {
    coroutine = { "create", "resume", "running", "status", "wrap", "yield" },
    math = {
        "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
        "ldexp", "log", "log10", "max", "min", "mod", "modf", "pi", "pow", "rad", "random", "randomseed", "sin", "sinh",
        "sqrt", "tan", "tanh",
    },
    os = { "clock" },
    string = {
        "byte", "char", "dump", "find", "format", "gfind", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse",
        "sub", "upper",
    },
    table = { "concat", "foreach", "foreachi", "getn", "insert", "maxn", "remove", "setn", "sort" },
}

local contents = setmetatable({}, { __mode = "k" }) -- sealed table -> the real one

local message = "Attempt to modify a readonly table"

-- By a function: Redis's say it without a place.
local function refuse()
    error(message, 0)
end

-- By an assignment.
local function refuse_assignment()
    error(message, 2)
end

local function seal(real, metatable)
    local sealed = setmetatable({}, {
        __index = real,
        __newindex = refuse_assignment,
        __metatable = metatable or false,
    })
    contents[sealed] = real
    return sealed
end

local natives = setmetatable({}, { __mode = "k" }) -- functions that are written in C elsewhere

local native_indexes = false -- whether `native` looks for a method in a sealed table: its caller is to blame

-- Whether a function, or what a table is called by, is not written in Lua. The code that
-- syntax/tail.rs writes into scripts asks; with a label, as 5.1 names the value in errors, it is an
-- error if the value can't be called, or has no methods.
local function native(what, label, method)
    local given = type(what)
    if method then
        if given ~= "table" and given ~= "string" then
            local shown = label and label .. " (a " .. given .. " value)" or "a " .. given .. " value"
            error("attempt to index " .. shown, 2)
        end
        native_indexes = contents[what] ~= nil
        what = what[method]
        native_indexes = false
    elseif given ~= "function" then
        local metatable = getmetatable(what)
        local call = type(metatable) == "table" and rawget(metatable, "__call")
        if not call and label ~= nil then
            local shown = label and label .. " (a " .. given .. " value)" or "a " .. given .. " value"
            error("attempt to call " .. shown, 2)
        end
        what = call
    end
    return natives[what] or is_native(what)
end

local function missing(_, name)
    if name == "\255native" then
        return native
    end
    local level = native_indexes and 3 or 2
    native_indexes = false
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", level)
end

-- Errors about arguments, as Lua 5.1 tells them. They are raised at the place where the function
-- that finds them was called, and name it as the call does.

local function bad(at, why, level)
    local name, method = called_as(level or 2)
    if method then
        at = at - 1
        if at == 0 then
            error("calling '" .. name .. "' on bad self (" .. why .. ")", (level or 2) + 1)
        end
    end
    error("bad argument #" .. at .. " to '" .. name .. "' (" .. why .. ")", (level or 2) + 1)
end

local function kind_of(at, ...)
    return at > select("#", ...) and "no value" or type((select(at, ...)))
end

-- Returns the argument at this place, a number if that is expected.
local function expect(at, kind, ...)
    local value = select(at, ...)
    local given = type(value)
    if kind == "number" then
        local number = (given == "number" or given == "string") and tonumber(value)
        if number then
            return number
        end
    elseif given == kind or kind == "string" and given == "number" then
        return value
    end
    bad(at, kind .. " expected, got " .. kind_of(at, ...), 3)
end

-- As expect, but nil and no value are allowed.
local function expect_or_nil(at, kind, ...)
    local value = select(at, ...)
    if value == nil or type(value) == kind then
        return value
    end
    if kind == "number" and tonumber(value) and type(value) == "string" then
        return tonumber(value)
    end
    if kind == "string" and type(value) == "number" then
        return globals.tostring(value)
    end
    bad(at, kind .. " expected, got " .. kind_of(at, ...), 3)
end

local function expect_any(at, ...)
    if select("#", ...) < at then
        bad(at, "value expected", 3)
    end
end

-- LuaJIT finds some errors in another order than Lua 5.1, or tells them otherwise. Where all
-- arguments are right, a function below calls LuaJIT's last, so that its errors name the script's
-- call.
--
-- Scripts call these functions in their loops, and a call within takes as long as the function
-- itself. So the usual arguments are recognised by comparisons and by look-ups in these sets.

local codes, small = {}, {} -- of characters, and of places in short texts
for number = -16, 255 do
    small[number] = true
    codes[number] = number >= 0 or nil
end

for _, name in next, { "atan2", "fmod", "pow" } do
    local raw = math[name]
    math[name] = function(...)
        expect(2, "number", ...)
        expect(1, "number", ...)
        return raw(...)
    end
end

-- As C casts a double to an int.
local function to_int(number)
    if number ~= number or number >= 2 ^ 63 or number < -2 ^ 63 then
        return 0
    end
    number = (number < 0 and ceil or floor)(number) % 2 ^ 32
    return number >= 2 ^ 31 and number - 2 ^ 32 or number
end

local ldexp, log = math.ldexp, math.log

function math.ldexp(...)
    local power = to_int(expect(2, "number", ...))
    return ldexp(expect(1, "number", ...), power)
end

for name, raw in next, { floor = floor, ceil = ceil } do
    math[name] = function(...)
        if (...) == nil then
            expect(1, "number", ...)
        end
        return raw(...)
    end
end

-- A number replaces the one before it only if it is greater (less), so what is no number stays
-- where it stands first, and loses everywhere else. LuaJIT lets the last one of them win.
for name, raw in next, { max = math.max, min = math.min } do
    local is_max = name == "max"
    local function choose(...)
        local chosen = expect(1, "number", ...)
        local given = { ... }
        for at = 2, select("#", ...) do
            local number = type(given[at]) == "number" and given[at] or expect(at, "number", ...)
            if is_max and number > chosen or not is_max and number < chosen then
                chosen = number
            end
        end
        return chosen
    end
    math[name] = function(...)
        local first, second, third = ...
        local count = select("#", ...)
        if first == first and second == second and third == third and count <= 3 then
            return raw(...)
        end
        local given = { ... }
        for at = 1, count do
            if given[at] ~= given[at] then
                return choose(...)
            end
        end
        return raw(...)
    end
end

function math.log(...)
    if select("#", ...) > 1 then
        return log((...))
    end
    return log(...)
end

function math.deg(...)
    return expect(1, "number", ...) / (math.pi / 180)
end

function math.rad(...)
    return expect(1, "number", ...) * (math.pi / 180)
end

for _, name in next, { "band", "bor", "bxor" } do
    local raw = bit[name]
    bit[name] = function(...)
        local count = select("#", ...)
        if count > 2 then
            expect(1, "number", ...)
            for at = count, 2, -1 do
                expect(at, "number", ...)
            end
        end
        return raw(...)
    end
end

local char, len = string.char, string.len

function string.char(...)
    local count, first, second = select("#", ...), ...
    if codes[first] and (count == 1 or count == 2 and codes[second]) then
        return char(...)
    end
    local given = { ... }
    for at = 1, count do
        local code = given[at]
        if not codes[code] then
            code = to_int(expect(at, "number", ...))
            if code < 0 or code > 255 then
                bad(at, "invalid value")
            end
        end
        given[at] = char(code)
    end
    return concat(given)
end

function string.len(...)
    if (...) == nil then
        expect(1, "string", ...)
    end
    return len(...)
end

os.clock = options.clock

local dump = string.dump

function string.dump(...)
    local code = expect(1, "function", ...)
    if native(code) then
        error("unable to dump given function", 2)
    end
    return dump(code)
end

local rep = string.rep

-- LuaJIT has a third argument.
function string.rep(...)
    if select("#", ...) > 2 then
        local text, count = ...
        return rep(text, count)
    end
    return rep(...)
end

-- LuaJIT cuts places to 32 bits. A place beyond 64 bits is the least one, and all behind the text
-- are one.
local function to_place(number, text)
    if number ~= number or number >= 2 ^ 63 then
        number = -2 ^ 63
    end
    return math.max(math.min(number, #text + 1), -#text - 1)
end

for _, name in next, { "sub", "byte" } do
    local raw = string[name]
    string[name] = function(...)
        local text, from, to = ...
        if small[from] and (to == nil or small[to]) then
            return raw(...)
        end
        -- A text that holds a number is that number.
        from, to = type(from) == "string" and tonumber(from) or from, type(to) == "string" and tonumber(to) or to
        if to == nil and type(from) == "number" and from >= 2 ^ 31 then
            text = type(text) == "number" and globals.tostring(text) or expect(1, "string", ...)
            return raw(text, to_place(from, text))
        end
        if type(from) ~= "number" or type(to) ~= "number" or to < 2 ^ 31 and from < 2 ^ 31 then
            return raw(...)
        end
        text = type(text) == "number" and globals.tostring(text) or expect(1, "string", ...)
        return raw(text, to_place(from, text), to_place(to, text))
    end
end

for _, name in next, { "find", "match" } do
    local raw = string[name]
    string[name] = function(...)
        local text, pattern, from, plain = ...
        if from == nil or small[from] then
            return raw(...)
        end
        if type(text) == "number" then
            text = globals.tostring(text)
        end
        if type(text) ~= "string" or not tonumber(from) then
            return raw(...)
        end
        return raw(text, pattern, to_place(tonumber(from), text), plain)
    end
end

local join = table.concat

function table.concat(...)
    local list, between, from, to = ...
    if from == nil and type(list) == "table" then
        return join(...)
    end
    expect_or_nil(2, "string", ...)
    if from ~= nil and type(list) == "table" and tonumber(from) and (to == nil or tonumber(to)) then
        return join(list, between, to_int(tonumber(from)), to and to_int(tonumber(to)))
    end
    return join(...)
end

for _, name in next, { "getn", "maxn", "sort" } do
    local raw = table[name]
    if raw then
        table[name] = function(...)
            if (...) == nil then
                expect(1, "table", ...)
            end
            return raw(...)
        end
    end
end

local remove = table.remove

function table.remove(...)
    local list, place = ...
    if list == nil then
        expect(1, "table", ...)
    end
    if place ~= nil and not small[place] and tonumber(place) then
        return remove(list, to_int(tonumber(place)))
    end
    return remove(...)
end

local foreachi = table.foreachi

function table.foreachi(...)
    expect(1, "table", ...)
    expect(2, "function", ...)
    return foreachi(...)
end

function table.setn(...)
    expect(1, "table", ...)
    error("'setn' is obsolete", 2)
end

for _, name in next, { "create", "wrap" } do
    local raw = coroutine[name]
    coroutine[name] = function(...)
        local body = ...
        if type(body) ~= "function" or native(body) then
            bad(1, "Lua function expected")
        end
        return raw(body)
    end
end

local yield, running = coroutine.yield, coroutine.running

function coroutine.yield(...)
    if not running() then
        error("attempt to yield across metamethod/C-call boundary", 0)
    end
    return yield(...)
end

-- LuaJIT writes no sign of what is no number.

local nan_text = options.nan_text

local unsigned_tostring = tostring

function globals.tostring(...)
    local value = ...
    if value ~= value and type(value) == "number" then
        return nan_text(value)
    elseif type(value) == "userdata" then
        -- cjson.null, as C writes a pointer to nothing.
        return (gsub(unsigned_tostring(value), "NULL$", "(nil)"))
    end
    return unsigned_tostring(...)
end

-- LuaJIT reads what is no number with one sign. With a base, Lua 5.1 reads the unsigned numbers of
-- C.
function globals.tonumber(...)
    local value, base = ...
    local radix = base == nil and 10 or to_int(tonumber(base) or 0)
    if radix == 10 then
        if type(value) ~= "string" then
            return tonumber(...)
        end
        local number = tonumber(value)
        if not number then
            -- C's text ends at a zero byte, and what is no number may be given in detail.
            local zero = find(value, "\0", 1, true)
            value = zero and sub(value, 1, zero - 1) or gsub(value, "^(%s*[-+]?[nN][aA][nN])%([%w_]*%)", "%1")
            number = tonumber(value)
        end
        if find(value, "^%s*[-+]?0[bB]") then
            return nil
        elseif number == number or find(value, "-", 1, true) then
            return number
        end
        return -number
    end
    local text = type(value) == "number" and globals.tostring(value) or value
    if radix < 2 or radix > 36 or type(text) ~= "string" then
        return tonumber(...)
    end
    if find(text, "-", 1, true) or base ~= radix then
        return unsigned(text, radix)
    end
    return tonumber(text, radix)
end

-- string.format: which conversions a format has is found out once, by the code of formats.lua,
-- which is loaded by the first script that formats something. LuaJIT's own function is called where
-- it writes what Lua 5.1 does.

local format = string.format
local shapes, write_all = {}, nil
local least, greatest = -2 ^ 63, 2 ^ 63

-- Whether LuaJIT writes a value as Lua 5.1 does, unless it contains a zero byte.
local function is_plain(kind, value)
    if codes[value] then
        return true
    end
    local given = type(value)
    if given == "number" then
        return value > least and value < greatest
    end
    return given == "string" and kind == "s"
end

local function all_plain(kinds, ...)
    for at = 1, #kinds do
        if not is_plain(kinds[at], (select(at + 1, ...))) then
            return false
        end
    end
    return true
end

function string.format(...)
    local text, first, second = ...
    local shape = shapes[text]
    if not shape then
        if type(text) ~= "string" then
            text = globals.tostring(expect(1, "string", ...))
        end
        if not write_all then
            local strings = contents[globals.string]
            write_all = options.load_formats()(globals, strings, format, error, bad, expect, nan_text, shapes)
        end
        return write_all(text, ...)
    end
    local count, kinds, plain = shape.count, shape.kinds, false
    if shape.slow then
        return write_all(text, ...)
    elseif not count then
        return format(...)
    elseif count <= 2 then
        -- Without an argument there is nil, which is not plain.
        plain = is_plain(kinds[1], first) and (count == 1 or is_plain(kinds[2], second))
    else
        plain = select("#", ...) > count and all_plain(kinds, ...)
    end
    if plain then
        if not shape.texts then
            return format(...)
        end
        local written = format(...)
        if not find(written, "\0", 1, true) then
            return written
        end
    end
    return write_all(text, ...)
end

-- An error message in which LuaJIT leaves out the name of a value gets it.

local names

local explain = options.explain(function(message)
    names = names or options.load_names()(match, tonumber, options.frame_of_script, options.slot_of_frame,
        options.instruction_at, options.line_at)
    return names(message)
end)

local guarded, assert, unpack = xpcall, assert, unpack

function globals.unpack(...)
    local list, from, to = ...
    if from == nil and to == nil or type(list) ~= "table" or not tonumber(from) or to ~= nil and not tonumber(to) then
        return unpack(...)
    end
    return unpack(list, to_int(tonumber(from)), to and to_int(tonumber(to)))
end

function globals.ipairs(...)
    if (...) == nil then
        expect(1, "table", ...)
    end
    return ipairs(...)
end

function globals.xpcall(...)
    expect_any(2, ...)
    local call, handler = ...
    if type(handler) ~= "function" then
        return guarded(call, handler)
    end
    return guarded(call, function(problem)
        return handler(explain(problem))
    end)
end

function globals.assert(...)
    local value, text = ...
    if value then
        return assert(...)
    end
    if select("#", ...) > 1 and text ~= nil and type(text) ~= "string" and type(text) ~= "number" then
        bad(2, "string expected, got " .. type(text))
    end
    if text == nil and select("#", ...) > 1 then
        return assert(value, "assertion failed!")
    end
    return assert(...)
end

-- A level is one of the script's functions or of Lua's library, written in C. LuaJIT counts the
-- functions of this file, too.
function globals.error(...)
    local text, level = ...
    if level == nil or (tonumber(level) or 0) < 2 then
        return error(...)
    end
    return error(text, script_level(to_int(tonumber(level))))
end

-- The error of a command is a table; pcall gives its text.

local function finish(ok, ...)
    if not ok then
        local problem = ...
        if type(problem) == "table" then
            local text = problem.err
            if type(text) == "string" then
                return false, text
            end
            return false, problem, text
        end
    end
    return ok, ...
end

function globals.pcall(...)
    if (...) == nil and select("#", ...) == 0 then
        return false, "attempt to call a boolean value"
    end
    local call = ...
    return finish(guarded(call, explain, select(2, ...)))
end

-- Functions that look past metatables.

function globals.getmetatable(...)
    local value = ...
    if value == nil then
        expect_any(1, ...)
    end
    local metatable = getmetatable(value)
    if metatable == false then
        return nil
    end
    return metatable
end

function globals.setmetatable(...)
    local sealed, metatable = ...
    if contents[sealed] then
        if type(metatable) ~= "table" and (metatable ~= nil or select("#", ...) < 2) then
            bad(2, "nil or table expected")
        end
        refuse()
    end
    return setmetatable(...)
end

function globals.rawget(...)
    local sealed, key = ...
    local real = contents[sealed]
    if real then
        expect_any(2, ...)
        return rawget(real, key)
    end
    return rawget(...)
end

function globals.rawset(...)
    local sealed = ...
    if contents[sealed] then
        expect_any(2, ...)
        expect_any(3, ...)
        refuse()
    end
    return rawset(...)
end

function globals.next(...)
    local sealed, key = ...
    local real = contents[sealed]
    if real then
        return next(real, key)
    end
    return next(...)
end

function globals.pairs(...)
    local sealed = ...
    if contents[sealed] then
        return globals.next, sealed, nil
    end
    if sealed == nil then
        expect(1, "table", ...)
    end
    return pairs(...)
end

local PLACES_BELOW_MAX = 1000000

function table.insert(...)
    local sealed = ...
    local count = select("#", ...)
    if contents[sealed] and (count == 2 or count == 3) then
        if count == 3 then
            expect(2, "number", ...)
        end
        refuse()
    end
    if count == 3 and type(sealed) == "table" then
        local _, _, value = ...
        -- LuaJIT would shift two thousand million elements for infinity.
        local place = to_int(expect(2, "number", ...))
        if place >= -PLACES_BELOW_MAX then
            return insert(sealed, place, value)
        end
        -- Lua shifts an element for each number, for minutes in which no script can be stopped.
        insert(sealed, 0, nil)
        rawset(sealed, place, value)
        return
    end
    return insert(...)
end

function table.foreach(...)
    local list, call = expect(1, "table", ...), expect(2, "function", ...)
    return foreach(contents[list] or list, call)
end

-- Source only, never bytecode, and with the globals of all scripts.

local translate = options.translate

local function compile(source, name)
    local translated, problem = translate(source, name)
    if not translated then
        return nil, problem
    end
    return load(translated, name, "t")
end

function globals.loadstring(...)
    local source = globals.tostring(expect(1, "string", ...))
    local name = expect_or_nil(2, "string", ...)
    return compile(source, name or source)
end

function globals.load(...)
    local name = expect_or_nil(2, "string", ...)
    local reader = expect(1, "function", ...)
    local pieces = {}
    repeat
        local ok, piece = pcall(reader)
        if not ok then
            return nil, piece
        end
        if piece ~= nil and type(piece) ~= "string" then
            return nil, "reader function must return a string"
        end
        pieces[#pieces + 1] = piece
    until piece == nil or piece == ""
    return compile(concat(pieces), name or "=(load)")
end

-- All scripts share the collector: they may query it and start a collection, not stop or tune it.

local harmless = { collect = true, count = true, step = true }
local tuning = { stop = 0, restart = 0, setpause = 200, setstepmul = 200 }

function globals.collectgarbage(...)
    local what = expect_or_nil(1, "string", ...) or "collect"
    if not harmless[what] and not tuning[what] then
        bad(1, "invalid option '" .. what .. "'")
    end
    local size = expect_or_nil(2, "number", ...)
    if tuning[what] then
        return tuning[what]
    end
    if what == "step" then
        return collectgarbage("step", to_int(size or 0))
    end
    return collectgarbage(what)
end

-- The same sequence as Redis for the same seed.

local random, seed = options.random, options.randomseed

function math.random(...)
    -- A number is drawn also if the arguments are wrong.
    local drawn, count = random(), select("#", ...)
    if count == 0 then
        return drawn
    end
    if count > 2 then
        error("wrong number of arguments", 2)
    end
    local low, high = 1, to_int(expect(1, "number", ...))
    if count == 2 then
        low, high = high, to_int(expect(2, "number", ...))
    end
    if low > high then
        bad(count, "interval is empty")
    end
    -- The width is an int in C, which overflows.
    return floor(drawn * (count == 1 and high or to_int(high - low + 1))) + low
end

function math.randomseed(...)
    seed(to_int(expect(1, "number", ...)))
end

-- Off unless `lua-enable-insecure-api` says so: the environments of functions. The real globals
-- stay hidden, and the one that new functions get stays what it is.

local sealed_globals

local function insecure()
    table.insert(allowed, "getfenv")
    table.insert(allowed, "setfenv")
    function globals.getfenv(what)
        if what == nil then
            return sealed_globals
        end
        if type(what) == "number" and what > 0 then
            what = what + 1
        end
        local environment = getfenv(what)
        return environment == globals and sealed_globals or environment
    end
    function globals.setfenv(what, environment)
        if what == 0 then
            refuse()
        end
        if type(what) == "number" then
            what = what + 1
        end
        return setfenv(what, environment)
    end
end

if options.insecure then
    insecure()
end

-- Throw away all else, and seal the rest.

math.mod, string.gfind, table.getn = math.fmod, string.gmatch, table.getn or function(list) return #list end

for name, members in next, libraries do
    local real, kept = globals[name], {}
    for _, member in next, members do
        kept[member] = real[member]
    end
    globals[name] = kept
end

getmetatable("").__index = globals.string

local kept = {}
for _, name in next, allowed do
    local value = globals[name]
    if type(value) == "table" then
        for _, member in next, value do
            if type(member) == "function" then
                natives[member] = true
            end
        end
        value = seal(value)
    elseif type(value) == "function" then
        natives[value] = true
    end
    kept[name] = value
end
for name in pairs(globals) do
    globals[name] = nil
end
for name, value in next, kept do
    globals[name] = value
end
globals.server = globals.redis

local strings = getmetatable("")
strings.__metatable = seal({ __index = globals.string })

setmetatable(globals, { __index = missing })
local reader = { __index = globals, __newindex = refuse_assignment }
sealed_globals = setmetatable({}, reader)
contents[sealed_globals] = globals
reader.__metatable = seal({ __index = seal({}) })
globals._G = sealed_globals

-- While a library of functions is loaded, it sees its registration API and nothing else.

local registration = setmetatable({}, { __index = missing })
local library = seal(setmetatable(options.registration or {}, { __index = missing }))
registration.redis, registration.server = library, library

local function loading(yes)
    reader.__index = yes and registration or globals
    contents[sealed_globals] = yes and registration or globals
end

return sealed_globals, loading
