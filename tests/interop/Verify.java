// Verifies tokens with javax.crypto, because Debian has no JWT library for Java. The key is `secret.getBytes(UTF_8)`.
// The sample on Rollout's page passes the secret as a String to jjwt 0.9.1, which base64-decodes it.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

import static java.nio.charset.StandardCharsets.UTF_8;

public class Verify {
    // The JDK has no JSON parser. A quote inside a string is written \", so this pattern matches only a member's name.
    static final Pattern EXP = Pattern.compile("(?<!\\\\)\"exp\":(\\d+)[,}]");

    static String verify(String token, String secret, String issuer) throws GeneralSecurityException {
        String[] parts = token.split("\\.", -1);
        if (parts.length != 3) throw new GeneralSecurityException("not three parts");
        Mac mac = Mac.getInstance("HmacSHA512");
        mac.init(new SecretKeySpec(secret.getBytes(UTF_8), "HmacSHA512"));
        byte[] expected = mac.doFinal((parts[0] + "." + parts[1]).getBytes(UTF_8));
        Base64.Decoder base64 = Base64.getUrlDecoder();
        if (!MessageDigest.isEqual(expected, base64.decode(parts[2]))) throw new GeneralSecurityException("signature");
        if (!new String(base64.decode(parts[0]), UTF_8).contains("\"alg\":\"HS512\"")) throw new GeneralSecurityException("alg");
        String claims = new String(base64.decode(parts[1]), UTF_8);
        if (!claims.startsWith("{\"iss\":\"" + issuer + "\",")) throw new GeneralSecurityException("another issuer");
        Matcher exp = EXP.matcher(claims);
        if (!exp.find() || Long.parseLong(exp.group(1)) <= Instant.now().getEpochSecond())
            throw new GeneralSecurityException("expired");
        return claims;
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        PrintStream out = new PrintStream(System.out, true, UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] field = line.split("\t");
            String answer;
            try {
                answer = "accepted\t" + verify(field[3], field[1], field[2]);
            } catch (GeneralSecurityException | IllegalArgumentException error) {
                answer = "refused\t" + error.getMessage();
            }
            out.println("javax.crypto\t" + Runtime.version().feature() + "\t" + field[0] + "\t" + answer);
        }
    }
}
