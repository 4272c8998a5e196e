-- string.format where LuaJIT writes something else than Lua 5.1, or tells an error otherwise: each
-- conversion is written alone. Run once for each interpreter, by the first call of string.format.
--
-- The table of shapes is shared with sandbox.lua: text of a format -> its conversions.

local globals, strings, format, error, bad, expect, nan_text, shapes = ...
local ipairs, next, select, tostring = globals.ipairs, globals.next, globals.select, globals.tostring
local concat = globals.table.concat
local find, match, sub, gsub, upper = strings.find, strings.match, strings.sub, strings.gsub, strings.upper
local SHAPES_MAX = 200
local shapes_kept = 0

-- The conversion that begins at a place of a format: how it is written, or its problem, and the
-- place behind it.
local function conversion(text, at)
    local flags, width, behind = match(text, "^([-+ #0]*)(%d?%d?)()", at)
    local precision = match(text, "^%.%d?%d?", behind) or ""
    behind = behind + #precision
    local kind = sub(text, behind, behind)
    if #flags > 5 then
        return nil, "invalid format (repeated flags)"
    end
    if find(kind, "%d") then
        return nil, "invalid format (width or precision too long)"
    end
    if kind == "" or not find("cdiouxXeEfgGqs", kind, 1, true) then
        return nil, "invalid option '%" .. (kind == "\0" and "" or kind) .. "' to 'format'"
    end
    local spec = { text = "%" .. flags .. width .. precision .. kind, kind = kind, width = width }
    spec.left = find(flags, "-", 1, true)
    spec.precision = precision ~= ""
    return spec, behind + 1
end

-- `texts` says that a value may have a zero byte, `slow` that LuaJIT's function is never right.
local function analyse(text)
    local shape, done = { kinds = {} }, 1
    while true do
        local place = find(text, "%", done, true)
        if not place then
            break
        end
        local piece = { before = sub(text, done, place - 1) }
        if sub(text, place + 1, place + 1) == "%" then
            piece.before, done = piece.before .. "%", place + 2
        else
            shape.count = (shape.count or 0) + 1
            local spec, behind = conversion(text, place + 1)
            piece.spec, piece.at, piece.problem = spec, shape.count + 1, not spec and behind
            shape.slow = shape.slow or not spec or spec.kind == "q" or spec.kind == "c"
            shape.texts = shape.texts or spec and spec.kind == "s"
            shape.kinds[shape.count] = spec and spec.kind
            done = behind
        end
        shape[#shape + 1] = piece
        if piece.problem then
            shape.last = ""
            return shape
        end
    end
    shape.last = sub(text, done)
    return shape
end

local function shape_of(text)
    local shape = shapes[text]
    if not shape then
        if shapes_kept == SHAPES_MAX then
            for kept in next, shapes do
                shapes[kept] = nil
            end
            shapes_kept = 0
        end
        shape = analyse(text)
        shapes[text], shapes_kept = shape, shapes_kept + 1
    end
    return shape
end

-- C's formats end at a zero byte.
local function write(spec, text)
    return match(format(spec, text), "^%Z*")
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\\n", ["\r"] = "\\r", ["\0"] = "\\000" }

local function write_text(spec, value)
    local text = tostring(value)
    if spec.kind == "q" then
        return '"' .. gsub(text, '["\\\n\r%z]', escapes) .. '"'
    end
    if #text >= 100 and not spec.precision then
        return text
    end
    return write(spec.text, match(text, "^%Z*"))
end

local function write_number(spec, value)
    if value >= 2 ^ 64 and find("ouxX", spec.kind, 1, true) then
        value = 0
    end
    if value == value then
        return write(spec.text, value)
    end
    if find("eEfgG", spec.kind, 1, true) then
        local text = nan_text(value)
        text = find("EG", spec.kind, 1, true) and upper(text) or text
        return format("%" .. (spec.left and "-" or "") .. spec.width .. "s", text)
    end
    return write(spec.text, spec.kind == "c" and 0 or -2 ^ 63)
end

return function(text, ...)
    local shape, out, count = shape_of(text), {}, select("#", ...)
    for place, piece in ipairs(shape) do
        local written, spec = piece.before, piece.spec
        if piece.at and piece.at > count then
            bad(piece.at, "no value")
        end
        if piece.problem then
            error(piece.problem, 2)
        end
        if spec and (spec.kind == "s" or spec.kind == "q") then
            written = written .. write_text(spec, expect(piece.at, "string", ...))
        elseif spec then
            written = written .. write_number(spec, expect(piece.at, "number", ...))
        end
        out[place] = written
    end
    out[#out + 1] = shape.last
    return concat(out)
end
