// The Go sample from Rollout's page "Getting your API Key", with golang-jwt v4 as Debian packages it: it prints a
// token for each user id in its arguments.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt"
)

func generateToken(userId string) (string, error) {
	now := time.Now()

	token := jwt.NewWithClaims(jwt.SigningMethodHS512, jwt.MapClaims{
		"iss": os.Getenv("ROLLOUT_CLIENT_ID"),
		"sub": userId,
		"iat": now.Unix(),
		"exp": now.Add(15 * time.Minute).Unix(),
	})

	return token.SignedString([]byte(os.Getenv("ROLLOUT_CLIENT_SECRET")))
}

func main() {
	for _, userId := range os.Args[1:] {
		token, err := generateToken(userId)
		if err != nil {
			panic(err)
		}
		fmt.Println(token)
	}
}
