// The JavaScript sample from Rollout's page "Getting your API Key": it prints a token for each user id in its
// arguments.
const jwt = require("jsonwebtoken");

function generateToken(userId) {
  const now = Math.floor(Date.now() / 1000);

  return jwt.sign(
    {
      iss: process.env.ROLLOUT_CLIENT_ID,
      sub: userId,
      iat: now,
      exp: now + 900, // 15 minutes
    },
    process.env.ROLLOUT_CLIENT_SECRET,
    { algorithm: "HS512" },
  );
}

for (const userId of process.argv.slice(2)) console.log(generateToken(userId));
