# DBD::Pg: libpq; a prepared handle becomes a named statement called dbdpg_p<pid>_<n>, and DEALLOCATE ends it.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Checks;
use DBI;
use DBD::Pg qw(:pg_types :async);

sub session {
    my %options = @_;
    my $ca  = delete $options{ca} // $target{ca};
    my $dsn = "dbi:Pg:host=$target{host};port=$target{port};dbname=$target{database};connect_timeout=60;";
    $dsn .= $target{tls} ? "sslmode=verify-full;sslrootcert=$ca;channel_binding=require" : 'sslmode=disable';
    return DBI->connect($dsn, $target{user}, $target{password}, {RaiseError => 1, PrintError => 0, AutoCommit => 1, %options});
}

sub rows {
    my ($db, $sql, @values) = @_;
    return $db->selectall_arrayref($sql, undef, @values);
}

# one executes a prepared statement and returns its row.
sub one {
    my ($statement, @values) = @_;
    $statement->execute(@values);
    return @{$statement->fetchall_arrayref->[0]};
}

sub fails {
    my ($db, $sqlstate, $body) = @_;
    die "no error $sqlstate\n" if eval { $body->(); 1 };
    same($db->state, $sqlstate);
}

my $plus  = 'select ?::int + 1, pg_backend_pid()';
my $times = 'select ?::int * 10, pg_backend_pid()';

check connect => sub {
    my $db = session();
    same(rows($db, 'select current_user, current_database()'), [['app', $target{database}]]);
    same($db->ping, 1);
};

tls_check tls_stranger => sub {
    die "a stranger's certificate was taken\n" if eval { session(ca => $target{stranger}); 1 };
    die $@ unless $@ =~ /certificate verify failed/;
};

check prepared => sub {
    my ($db, $holder) = (session(), session());
    my $statement = $db->prepare($plus, {pg_prepare_now => 1});
    my @pids;
    for my $n (0 .. 5) {
        my ($value, $pid) = one($statement, $n);
        same($value, $n + 1);
        $holder->begin_work;    # on the server that was used last
        rows($holder, 'select 1');
        my ($again, $other) = one($statement, -$n);
        same($again, 1 - $n);
        $holder->rollback;
        push @pids, $pid, $other;
    }
    lands(@pids);
    same($db->selectrow_array("select count(*) from pg_prepared_statements where statement like 'select \$1::int + 1%'"), 1)
        if $target{mode} eq 'direct';
};

for (['prepared_equal', $plus, $plus], ['prepared_different', $plus, $times]) {
    my ($name, $mine, $theirs) = @$_;
    check $name => sub {
        my ($one, $other, $holder) = (session(), session(), session());
        my ($s, $o) = ($one->prepare($mine), $other->prepare($theirs));
        for my $n (0 .. 4) {
            my $want = $theirs eq $plus ? $n + 1 : $n * 10;
            same((one($s, $n))[0], $n + 1);
            same((one($o, $n))[0], $want);
            $holder->begin_work;
            rows($holder, 'select 1');
            same((one($o, $n))[0], $want);
            same((one($s, $n))[0], $n + 1);
            $holder->rollback;
        }
    };
}

check prepared_closed => sub {
    my $db = session();
    for my $n (0 .. 5) {
        my $statement = $db->prepare('select ?::int + 1');    # deallocated when it goes out of scope
        same((one($statement, $_))[0], $_ + 1) for $n .. $n + 3;    # it has a name from the second execution on
    }
};

check prepared_error => sub {
    my $db = session();
    my ($divide, $nothing) = ($db->prepare('select 1 / ?::int'), $db->prepare('select nothing, ?::int'));
    for (1 .. 3) {
        same((one($divide, 1))[0], 1);
        fails($db, '22012', sub { one($divide, 0) });
        fails($db, '42703', sub { one($nothing, 1) });
    }
};

check transaction => sub {
    my $db = session();
    $db->do('drop table if exists tx; create table tx(a int)');
    $db->begin_work;
    $db->do('insert into tx values (1)');
    $db->rollback;
    $db->begin_work;
    $db->do('insert into tx values (2)');
    $db->pg_savepoint('s');
    $db->do('insert into tx values (3)');
    fails($db, '22012', sub { $db->do('select 1/0') });
    $db->pg_rollback_to('s');
    $db->do('insert into tx values (4)');
    $db->commit;
    same([map { $_->[0] } @{rows($db, 'select a from tx order by a')}], [2, 4]);
};

check error => sub {
    my $db = session();
    $db->do('drop table if exists err');
    $db->do('create table err(a int constraint err_key primary key)');
    $db->do('insert into err values (1)');
    fails($db, '23505', sub { $db->do('insert into err values (1)') });
    same($db->pg_error_field('constraint'), 'err_key');
    fails($db, '42601', sub { $db->do('selec 1') });
    $db->begin_work;
    fails($db, '22012', sub { $db->do('select 1/0') });
    fails($db, '25P02', sub { $db->do('select 1') });
    $db->rollback;
    same(rows($db, 'select 1'), [[1]]);
};

check copy_in => sub {
    my $db = session();
    $db->do('drop table if exists copied');
    $db->do('create table copied(a int, b text)');
    $db->do('copy copied from stdin');
    $db->pg_putcopydata("$_\trow $_\n") for 0 .. 19999;
    $db->pg_putcopyend;
    $db->do('copy copied from stdin');
    $db->pg_putcopydata("no number\tx\n");
    fails($db, '22P02', sub { $db->pg_putcopyend });
    same(rows($db, 'select count(*), sum(a) from copied'), [[20000, 199990000]]);
};

check copy_out => sub {
    my $db = session();
    $db->do("copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout");
    my ($all, $line) = ('', '');
    $all .= $line while $db->pg_getcopydata($line) >= 0;
    same($all, join '', map { "$_\trow $_\n" } 1 .. 20000);
    same(rows($db, 'select 1'), [[1]]);
};

check cancel => sub {
    my ($db, $observer) = (session(), session());
    $db->do($CANCEL_ME, {pg_async => PG_ASYNC});
    until_true(sub { $observer->selectrow_array($RUNNING) == 1 });
    $db->pg_cancel;
    same($db->state, '57014');
    same(rows($db, 'select 1'), [[1]]);
};

check notice => sub {
    my $db = session();
    my @seen;
    local $SIG{__WARN__} = sub { push @seen, @_ };
    $db->do($NOTICE);
    same(\@seen, ["NOTICE:  look out\n"]);
};

check large => sub {
    my $db   = session();
    my $size = 0;
    $size += length $_->[1] for @{rows($db, $LARGE_ROWS)};
    same($size, 5000000);
    same(length($db->selectrow_array('select repeat(?, ?)', undef, 'y', 8 * $MEGABYTE)), 8 * $MEGABYTE);
    same($db->selectrow_array('select length(?)', undef, 'z' x (4 * $MEGABYTE)), 4 * $MEGABYTE);
};

check parameters => sub {
    my $db        = session();
    my $statement = $db->prepare('select ?::text, ?::text, ?::bytea, ?::int8, ?::int[]');
    $statement->bind_param(3, $EVERY_BYTE, {pg_type => PG_BYTEA});
    $statement->bind_param($_->[0], $_->[1]) for [1, undef], [2, $TEXT], [4, '4611686018427387904'], [5, [1, undef, 3]];
    $statement->execute;
    same($statement->fetchrow_arrayref, [undef, $TEXT, $EVERY_BYTE, 4611686018427387904, [1, undef, 3]]);
};

check cursor => sub {
    my $db = session(AutoCommit => 0);
    $db->do('declare part cursor for select generate_series(1, 1000)');
    my $sum = 0;
    while (my @part = @{rows($db, 'fetch 100 from part')}) { $sum += $_->[0] for @part }
    $db->rollback;
    same($sum, 500500);
};

run_checks();
