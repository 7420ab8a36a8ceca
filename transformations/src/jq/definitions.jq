# What the crate has not, or has otherwise than jq.
def todate: if isnumber then floor else . end | todateiso8601;
def date: todate;
def debug: .;
def debug(message): .;
def stderr: .;
def env: {};
def dateadd(unit; $n): . + $n;
def datesub(unit; $n): . - $n;
def ascii: [.] | implode;
def toarray: if isarray then . else [.] end;
def have_literal_numbers: true;
def have_decnum: false;
def trimstr($x): ltrimstr($x) | rtrimstr($x);
def leaf_paths: paths(scalars);
def join($separator):
  if . == [] then ""
  else reduce .[] as $x (null;
      (if . == null then "" else . + $separator end)
      + (if $x == null then "" elif ($x | isstring) then $x
         elif ($x | isnumber or isboolean) then ($x | tojson)
         else error("cannot join with \($x | type)") end))
  end;

def flatten($depth):
  if $depth < 0 then error("flatten depth must not be negative")
  else reduce .[] as $x ([];
      if ($x | isarray) and $depth > 0 then . + ($x | flatten($depth - 1)) else . + [$x] end)
  end;
def flatten: flatten(1000);

def delpaths($paths):
  reduce ($paths | sort | reverse | .[]) as $path (.;
    if $path == [] then null
    else
      ($path[:-1]) as $parent | $path[-1] as $last
      | (try getpath($parent) catch null) as $at
      | if $at == null then .
        elif ($last | isobject) then getpath($parent) |= (.[$last.start:$last.end] = [])
        elif ($at | try has($last) catch (($last | isnumber) and $last < 0 and ($at | length) + $last >= 0))
        then getpath($path) |= empty
        else . end
    end);
def del(f): delpaths([path(f)]);
def from_entries:
  reduce .[] as $x ({};
    . + { ($x | if isobject
               then (if has("key") and .key != null then .key
                     elif has("k") and .k != null then .k
                     elif has("name") and .name != null then .name
                     elif has("Name") and .Name != null then .Name
                     elif has("Key") and .Key != null then .Key
                     elif has("K") and .K != null then .K
                     elif .key == false then false
                     else null end
                     | if isstring then . elif isnumber or isboolean or . == null then tojson
                       else error("an entry's key is no string") end)
               else error("cannot use \(type) as an entry") end):
          ($x | if has("value") then .value elif has("v") then .v else .Value end) });
def with_entries(f): to_entries | map(f) | from_entries;
def getpath($path):
  reduce $path[] as $p (.; if . == null then null else .[$p] end);

def @csv:
  if isarray then
    [.[] | if isnumber or isboolean then tojson
           elif isstring then "\"" + gsub("\""; "\"\"") + "\""
           elif . == null then ""
           else error("\(type) cannot be a field of CSV") end] | join(",")
  else error("\(type) cannot be a row of CSV") end;
def @tsv:
  if isarray then
    [.[] | if isnumber or isboolean then tojson
           elif isstring then gsub("\\\\"; "\\\\") | gsub("\t"; "\\t") | gsub("\n"; "\\n") | gsub("\r"; "\\r")
           elif . == null then ""
           else error("\(type) cannot be a field of TSV") end] | join("\t")
  else error("\(type) cannot be a row of TSV") end;
