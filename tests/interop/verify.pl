# Verifies tokens with Perl's Crypt::JWT, called as its own documentation shows.
use strict;
use warnings;
use Crypt::JWT qw(decode_jwt);
use JSON::PP ();

my $json = JSON::PP->new->utf8;
while (my $line = <STDIN>) {
    chomp $line;
    my ($name, $secret, $issuer, $token) = split /\t/, $line;
    my $claims = eval {
        decode_jwt(token => $token, key => $secret, accepted_alg => 'HS512', verify_iss => $issuer, verify_exp => 1);
    };
    my @answer = $claims ? ('accepted', $json->encode($claims)) : ('refused', $@ =~ s/\s+/ /gr);
    print join("\t", 'Crypt::JWT', $Crypt::JWT::VERSION, $name, @answer), "\n";
}
