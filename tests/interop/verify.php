<?php
// Verifies tokens with PHP's hash_hmac, because firebase/php-jwt is not packaged for Debian.

function verify(string $token, string $secret, string $issuer): string
{
    $parts = explode('.', $token);
    if (count($parts) !== 3) {
        throw new UnexpectedValueException('not three parts');
    }
    [$header, $payload, $signature] = array_map(
        fn (string $part) => base64_decode(strtr($part, '-_', '+/'), true),
        $parts,
    );
    if (json_decode($header)->alg !== 'HS512') {
        throw new UnexpectedValueException('another algorithm');
    }
    if (!hash_equals(hash_hmac('sha512', "$parts[0].$parts[1]", $secret, true), $signature)) {
        throw new UnexpectedValueException('signature');
    }
    $claims = json_decode($payload, flags: JSON_THROW_ON_ERROR);
    if ($claims->iss !== $issuer || $claims->exp <= time()) {
        throw new UnexpectedValueException('another issuer, or expired');
    }
    return $payload;
}

while (($line = fgets(STDIN)) !== false) {
    [$name, $secret, $issuer, $token] = explode("\t", rtrim($line, "\n"));
    try {
        $answer = ['accepted', verify($token, $secret, $issuer)];
    } catch (UnexpectedValueException | JsonException $error) {
        $answer = ['refused', $error->getMessage()];
    }
    echo implode("\t", ['hash_hmac', PHP_VERSION, $name, ...$answer]), "\n";
}
