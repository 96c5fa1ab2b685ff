<?php
// Laravel with its session guard and users in a table. SESSION_DRIVER selects the session driver; the other session
// settings are Laravel's defaults. PHP's built-in server runs this file for every request.

use Illuminate\Auth\AuthServiceProvider;
use Illuminate\Config\Repository;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Cookie\CookieServiceProvider;
use Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse;
use Illuminate\Cookie\Middleware\EncryptCookies;
use Illuminate\Database\DatabaseServiceProvider;
use Illuminate\Encryption\EncryptionServiceProvider;
use Illuminate\Foundation\Application;
use Illuminate\Foundation\Bootstrap\BootProviders;
use Illuminate\Foundation\Bootstrap\RegisterFacades;
use Illuminate\Foundation\Bootstrap\RegisterProviders;
use Illuminate\Foundation\Exceptions\Handler;
use Illuminate\Foundation\Http\Kernel;
use Illuminate\Hashing\HashServiceProvider;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Session\Middleware\StartSession;
use Illuminate\Session\SessionServiceProvider;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Hash;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\Facades\Schema;
use Illuminate\Support\MessageBag;
use Illuminate\Support\ViewErrorBag;

require 'Illuminate/autoload.php';

$state = getenv('STATE');
@mkdir("$state/bootstrap/cache", recursive: true);
$app = new Application($state);
$app->instance('config', new Repository([
    'app' => [
        'key' => getenv('APP_KEY'),
        'cipher' => 'AES-256-CBC',
        'aliases' => [],
        'providers' => [
            AuthServiceProvider::class,
            CookieServiceProvider::class,
            DatabaseServiceProvider::class,
            EncryptionServiceProvider::class,
            HashServiceProvider::class,
            SessionServiceProvider::class,
        ],
    ],
    'auth' => [
        'defaults' => ['guard' => 'web'],
        'guards' => ['web' => ['driver' => 'session', 'provider' => 'users']],
        'providers' => ['users' => ['driver' => 'database', 'table' => 'users']],
    ],
    'database' => [
        'default' => 'app',
        'connections' => ['app' => ['driver' => 'sqlite', 'database' => "$state/app.sqlite3", 'prefix' => '']],
    ],
    'hashing' => ['driver' => 'bcrypt', 'bcrypt' => ['rounds' => 4]],
    'session' => [
        'driver' => getenv('SESSION_DRIVER'),
        'lifetime' => 120,
        'expire_on_close' => false,
        'encrypt' => (bool) getenv('SESSION_ENCRYPT'),
        'table' => 'sessions',
        'lottery' => [2, 100],
        'cookie' => 'laravel_session',
        'path' => '/',
        'domain' => null,
        'secure' => false,
        'http_only' => true,
        'same_site' => 'lax',
    ],
]));

// Responds to an exception with its class name, because there are no views.
class TextHandler extends Handler
{
    public function report(Throwable $problem)
    {
        error_log((string) $problem);
    }

    public function render($request, Throwable $problem)
    {
        return new Response(get_class($problem), 500);
    }
}
$app->singleton(ExceptionHandler::class, TextHandler::class);

class AppKernel extends Kernel
{
    protected $bootstrappers = [RegisterFacades::class, RegisterProviders::class, BootProviders::class];
    protected $middlewareGroups = [
        'web' => [EncryptCookies::class, AddQueuedCookiesToResponse::class, StartSession::class],
    ];
}

$kernel = $app->make(AppKernel::class);
$kernel->bootstrap();
@touch("$state/app.sqlite3");
if (!Schema::hasTable('users')) {
    Schema::create('sessions', function ($table) {
        $table->string('id')->primary();
        $table->foreignId('user_id')->nullable();
        $table->string('ip_address', 45)->nullable();
        $table->text('user_agent')->nullable();
        $table->longText('payload');
        $table->integer('last_activity');
    });
    Schema::create('users', function ($table) {
        $table->id();
        $table->string('name');
        $table->string('password');
        $table->string('remember_token', 100)->nullable();
    });
    DB::table('users')->insert([
        ['name' => 'first', 'password' => Hash::make('of another')],
        ['name' => getenv('APP_USER'), 'password' => Hash::make(getenv('APP_PASSWORD'))],
    ]);
}

Route::middleware('web')->group(function () {
    Route::post('/login', function (Request $request) {
        if (!Auth::attempt(['name' => $request->input('username'), 'password' => $request->input('password')])) {
            return new Response('', 403);
        }
        $request->session()->regenerate();
        // Stores an object in the session, as Laravel does after a failed form validation.
        $errors = (new ViewErrorBag())->put('default', new MessageBag(['name' => ['too short']]));
        $request->session()->flash('errors', $errors);
        return new Response('', 204);
    });
    Route::post('/logout', function (Request $request) {
        Auth::logout();
        $request->session()->invalidate();
        return new Response('', 204);
    });
    Route::get('/me', fn () => Auth::check() ? new Response((string) Auth::id()) : new Response('', 401));
});

$response = $kernel->handle($request = Request::capture());
$response->send();
$kernel->terminate($request, $response);
