# What the Perl programs share: the target, the checks' order, and their report.

package Checks;

use strict;
use warnings;
use utf8;
use Exporter 'import';
use JSON::PP;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(%target check tls_check same lands until_true run_checks $CANCEL_ME $RUNNING $LARGE_ROWS $MEGABYTE $TEXT $EVERY_BYTE $NOTICE);

# As the test describes it: name, mode (direct, session or transaction), host, port, user, password, database, tls, ca, stranger.
our %target = %{decode_json(do { local $/; <STDIN> })};

our $CANCEL_ME  = 'select pg_sleep(30)';
our $RUNNING    = "select count(*) from pg_stat_activity where datname = current_database() and query = '$CANCEL_ME' and state = 'active'";
our $LARGE_ROWS = "select g, repeat('x', 5000) from generate_series(1, 1000) g";
our $MEGABYTE   = 1 << 20;
our $TEXT       = "na\x{ef}ve \x{2603} \x{1f40d} ' \" \\ %";
our $EVERY_BYTE = join '', map { chr } 0 .. 255;
our $NOTICE     = q{do $$ begin raise notice 'look out'; end $$};

my @all;

# check registers a function under a name; its death is the check's failure.
sub check { push @all, [@_] }

# tls_check is the same for what only a target with TLS is asked.
sub tls_check { check(@_) if $target{tls} }

# same fails unless got is want, compared as JSON. Large values are told in short.
sub same {
    my ($got, $want) = map { JSON::PP->new->canonical->allow_nonref->encode($_) } @_;
    die 'got ', substr($got, 0, 200), ', want ', substr($want, 0, 200), ' in line ', (caller)[2], "\n" if $got ne $want;
}

# lands judges the servers that executed a statement: several where transactions are pooled, one elsewhere.
sub lands {
    my %servers = map { $_ => 1 } @_;
    my $several = keys %servers > 1;
    die 'executed on ', scalar(keys %servers), " server(s)\n" if $several != ($target{mode} eq 'transaction');
}

# until_true polls for what has no event to wait for.
sub until_true {
    my ($condition) = @_;
    for (my $end = time + 60; !$condition->(); sleep 0.02) { die "not within a minute\n" if time > $end }
}

# run_checks makes all checks and prints one line of JSON for each.
sub run_checks {
    $| = 1;
    for (@all) {
        my ($name, $body) = @$_;
        my $ok = eval { $body->(); 1 };
        print encode_json({check => $name, ok => $ok ? JSON::PP::true : JSON::PP::false, detail => $ok ? '' : substr("$@", 0, 600)}), "\n";
    }
}

1;
