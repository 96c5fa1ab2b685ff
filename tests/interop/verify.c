// Verifies tokens with C's libjwt 1, which checks only the signature. The code below checks `alg`, `exp` and `iss`.
#include <jwt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *check(jwt_t *jwt, const char *issuer) {
  const char *iss = jwt_get_grant(jwt, "iss");
  if (jwt_get_alg(jwt) != JWT_ALG_HS512) return "another algorithm";
  if (!iss || strcmp(iss, issuer) != 0) return "another issuer";
  if (jwt_get_grant_int(jwt, "exp") <= (long)time(NULL)) return "expired";
  return NULL;
}

int main(void) {
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) > 0) {
    line[strcspn(line, "\n")] = '\0';
    const char *name = strtok(line, "\t"), *secret = strtok(NULL, "\t"), *issuer = strtok(NULL, "\t"), *token = strtok(NULL, "\t");
    jwt_t *jwt = NULL;
    const char *fault = "signature";
    if (jwt_decode(&jwt, token, (const unsigned char *)secret, (int)strlen(secret)) == 0) fault = check(jwt, issuer);
    char *claims = fault ? NULL : jwt_get_grants_json(jwt, NULL);
    printf("libjwt\t%s\t%s\t%s\t%s\n", VERSION, name, fault ? "refused" : "accepted", fault ? fault : claims);
    free(claims);
    jwt_free(jwt);
  }
  free(line);
  return 0;
}
