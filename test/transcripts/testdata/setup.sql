-- What every script may use, and must not change.

create table fruit (id int primary key, name text not null, weight numeric(6, 2));
insert into fruit values (1, 'apple', 150), (2, 'banana', 120.5), (3, 'cherry', 8.25), (4, 'date', 7), (5, 'elder', null);
grant select on fruit to clerk;

create type mood as enum ('sad', 'ok', 'happy');

-- Says something at a level and returns its length.
create function say(level text, what text) returns int language plpgsql as $$
begin
    case level
        when 'notice' then raise notice '%', what using detail = 'the detail', hint = 'the hint';
        when 'warning' then raise warning '%', what;
        when 'info' then raise info '%', what;
        when 'log' then raise log '%', what;
        else raise exception '%', what using errcode = 'P0042', detail = 'the detail', hint = 'the hint';
    end case;
    return length(what);
end $$;

-- Hides a SET from everybody who reads statements only.
create function hidden_set(name text, value text) returns void language plpgsql as $$ begin perform set_config(name, value, false); end $$;

create function triple(n int) returns setof int language sql as $$ select n from generate_series(1, 3) $$;
create procedure settle(inout n int) language plpgsql as $$ begin n := n + 1; commit; n := n * 10; end $$;
